package hosts

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// containerdConfig is what CRI is told of the folders of hosts.toml files.
type containerdConfig struct {
	path  string   // of the file that says it, or would
	aside bool     // it belongs to the folder that the files are written below
	named []string // what config_path names
	roots []string // where what people have is looked for; files go into the first
	edit  Edit     // nil where nothing has to change
	older olderRegistry
	notes []string
}

// dockerCerts is where containerd means to look as well from 2.2 on, when it is
// told nothing: see criRoots.
const dockerCerts = "/etc/docker/certs.d"

// containerdConfig finds the config.toml of the folder: beside it, as in
// /etc/containerd.
func (s Setting) containerdConfig() (containerdConfig, error) {
	c := containerdConfig{path: filepath.Join(filepath.Dir(s.Dir), "config.toml"), roots: []string{s.Dir}}
	if s.Machine.Rootless && !s.Told || filepath.Base(s.Dir) != "certs.d" {
		return c, nil // rootless containerd has no CRI, and ctr and nerdctl read no config.toml
	}
	c.aside = true
	content, err := s.Theirs(c.path)
	if err != nil {
		return c, err
	}
	if s.ownCerts() && (!s.Version.Known() || s.Version.AtLeast(2, 2)) {
		c.roots = append(c.roots, s.Machine.System(dockerCerts))
	}
	if content == nil {
		if !s.Told || s.ownCerts() {
			c.edit = criConfigPath(s.Dir, s.Version)
		}
		return c, nil
	}
	if c.path, content, err = s.criFile(c.path, content); err != nil {
		return c, err
	}
	read, err := readTOML(content)
	if err != nil {
		var blocked Blocked
		errors.As(err, &blocked)
		blocked.Path = c.path
		return c, blocked
	}
	section := criSection(read)
	if disabled := lookUp(read, "disabled_plugins"); listHas(disabled, section[1]) || listHas(disabled, "io.containerd.grpc.v1.cri") {
		c.notes = append(c.notes, c.path+" turns CRI off: only ctr --hosts-dir and nerdctl read these files")
		return c, nil
	}
	roots, named, works := s.criRoots(read)
	if named {
		c.named, c.roots = roots, roots
		if i := slices.Index(roots, s.Dir); i > 0 && !works {
			c.roots = roots[i:]
		}
	}
	switch {
	case !works:
		c.edit = criConfigPath(c.roots[0], s.Version)
		c.older = olderIn(read)
	case len(roots) > 1 && !s.Version.Known():
		c.notes = append(c.notes, c.path+" names several folders in config_path: "+listIsOne)
	}
	return c, nil
}

const listIsOne = "containerd from 2.1 on takes that for the name of one, and finds nothing, unless it has use_local_image_pull"

// ownCerts says that the folder is containerd's own.
func (s Setting) ownCerts() bool {
	return s.Dir == filepath.Clean(s.Machine.System("/etc/containerd/certs.d"))
}

// criRoots are the folders that config_path names, or that containerd looks into
// where it names none, and whether CRI does look there.
//
// From 2.1 on it pulls by its transfer service, which takes a list of folders for
// the name of one (containerd#12415), and finds nothing there: what it looks into
// unasked, from 2.2 on, is such a list.
func (s Setting) criRoots(read map[string]any) (roots []string, named, works bool) {
	registry := tableAt(read, append(criSection(read), "registry")...)
	set, told := registry["config_path"].(string)
	for _, root := range splitList(set) {
		roots = append(roots, filepath.Clean(root))
	}
	named = roots != nil
	if !named && s.ownCerts() && len(tableOf(registry["mirrors"])) == 0 && (s.Version.AtLeast(2, 3) || s.Version.AtLeast(2, 2) && !told) {
		roots = []string{s.Dir, s.Machine.System(dockerCerts)}
	}
	listed := !s.Version.AtLeast(2, 1) || pullsLocally(read)
	return roots, named, len(roots) == 1 || len(roots) > 1 && listed
}

// pullsLocally says that CRI does without the transfer service: where it is told
// to, or where it is told something that the service does not know.
func pullsLocally(read map[string]any) bool {
	section := criSection(read)
	images := tableAt(read, section...)
	is := func(key string, want any) bool {
		return images[key] == want || tableOf(images["containerd"])[key] == want // before version 3 it was there
	}
	downloads, limited := images["max_concurrent_downloads"].(int64)
	registry := tableOf(images["registry"])
	return is("use_local_image_pull", true) || is("discard_unpacked_layers", true) || is("image_pull_with_sync_fs", true) ||
		is("disable_snapshot_annotations", false) || limited && downloads != 3 ||
		len(tableOf(registry["configs"])) > 0 || len(tableOf(registry["auths"])) > 0
}

// criFile is the file that has the last word on CRI's registries: the main one,
// or the last of its imports that has that section, which before 2.0 replaces
// the section of the main one as a whole.
func (s Setting) criFile(path string, content []byte) (string, []byte, error) {
	read, err := readTOML(content)
	if err != nil {
		return path, content, nil //nolint:nilerr // the file itself is complained about later
	}
	imports, _ := read["imports"].([]any)
	for _, pattern := range imports {
		name, _ := pattern.(string)
		if name == "" {
			continue
		}
		if !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(path), name)
		} else if s.Machine.Root != "" && !strings.HasPrefix(name, s.Machine.Root) {
			name = s.Machine.System(name)
		}
		found, err := filepath.Glob(name)
		if err != nil {
			continue // containerd does not start with such a pattern
		}
		for _, file := range found {
			other, err := s.Theirs(file)
			if err != nil {
				return path, content, err
			}
			in, err := readTOML(other)
			if err != nil {
				continue
			}
			if tableAt(in, criSection(in)...) != nil {
				path, content = file, other
			}
		}
	}
	return path, content, nil
}

// criSection is where a config.toml of its version has what is said of images.
func criSection(read map[string]any) []string {
	version, _ := read["version"].(int64)
	switch {
	case version >= 3:
		return []string{"plugins", "io.containerd.cri.v1.images"}
	case version == 2:
		return []string{"plugins", "io.containerd.grpc.v1.cri"}
	}
	return []string{"plugins", "cri"}
}

// criConfigPath has CRI look into a folder for hosts.toml files.
//
// Beside the older mirrors and configs.tls it would be an error, over which
// containerd does not load the plugin at all, and the node has no images: what
// these say goes into that folder too.
func criConfigPath(folder string, v Version) Edit {
	setting := "config_path = " + quote(folder) + "\n"
	return func(theirs []byte) (Change, error) {
		if theirs == nil {
			version, section := 2, "io.containerd.grpc.v1.cri" // every version reads it
			if v.AtLeast(2, 0) {
				version, section = 3, "io.containerd.cri.v1.images"
			}
			text := fmt.Sprintf("version = %d\n\n[plugins.%s.registry]\n  %s", version, quote(section), setting)
			return Change{Content: []byte(marked("containerd", text)), Undo: Undo{Kind: undoMarked}}, nil
		}
		read, err := readTOML(theirs)
		if err != nil {
			return Change{}, err
		}
		section := append(criSection(read), "registry")
		if len(olderIn(read).names()) > 0 {
			content, err := moveOlder(theirs, folder, setting)
			return Change{Content: content, Undo: Undo{Kind: undoMarked}}, err
		}
		lines := linesOf(theirs)
		content, err := setConfigPath(lines, expressions(theirs), section, setting)
		if err == nil {
			err = proveTOML(theirs, content, setKey{append(slices.Clone(section), "config_path"), folder})
		}
		if err != nil {
			return Change{}, Blocked{
				Problem: err.Error(), Mend: "put this in by hand",
				Lines: "[" + section[0] + "." + quote(section[1]) + ".registry]\n  " + setting,
			}
		}
		return Change{Content: content, Undo: Undo{Kind: undoMarked}}, nil
	}
}

// setConfigPath puts the setting in place of an empty one, or at the start of
// the table, or with the table at the end.
func setConfigPath(lines []string, all []expression, section []string, setting string) ([]byte, error) {
	indent := func(line int) string {
		text := lines[line-1]
		return text[:len(text)-len(strings.TrimLeft(text, " \t"))]
	}
	key := append(slices.Clone(section), "config_path")
	for _, e := range all {
		if e.opens || !slices.Equal(e.path, key) {
			continue
		}
		old := lines[e.line-1]
		rest := slices.Concat(lines[:e.line-1], lines[e.line:])
		return putBefore(rest, e.line, marked("containerd", insteadOf(old)+indent(e.line)+setting)), nil
	}
	for i, e := range all {
		if e.opens && slices.Equal(e.path, section) {
			inner := indent(e.line) + "  "
			if i+1 < len(all) && !all[i+1].opens {
				inner = indent(all[i+1].line)
			}
			return putBefore(lines, e.line+1, marked("containerd", inner+setting)), nil
		}
	}
	table := "[" + section[0] + "." + quote(section[1]) + "." + section[2] + "]\n  " + setting
	return putBefore(lines, len(lines)+1, marked("containerd", table)), nil
}

// criNow is the configuration that CRI reads, nil where there is none.
func (s Setting) criNow(path string) (map[string]any, error) {
	content, err := readFile(path)
	if err != nil || content == nil {
		return nil, err
	}
	read, err := readTOML(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return read, nil
}
