package hosts

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// containerdConfig describes where CRI looks for hosts.toml files.
type containerdConfig struct {
	path    string   // the configuration file
	belongs bool     // the configuration is that of the folder with the files
	named   []string // the folders in config_path
	roots   []string // the folders with existing files; new files go into the first
	edit    Edit     // nil if nothing has to change
	older   olderRegistry
	notes   []string
}

// dockerCerts is a folder that containerd 2.2 and later intend to read by
// default: see criRoots.
const dockerCerts = "/etc/docker/certs.d"

// containerdConfig finds the config.toml for the folder. It is next to the
// folder, as in /etc/containerd.
func (s Setting) containerdConfig() (containerdConfig, error) {
	c := containerdConfig{path: filepath.Join(filepath.Dir(s.Dir), "config.toml"), roots: []string{s.Dir}}
	if s.Machine.Rootless && !s.DirGiven || filepath.Base(s.Dir) != "certs.d" {
		return c, nil // rootless containerd has no CRI, and ctr and nerdctl read no config.toml
	}
	c.belongs = true
	content, err := s.Theirs(c.path)
	if err != nil {
		return c, err
	}
	if s.ownCerts() && (!s.Version.Known() || s.Version.AtLeast(2, 2)) {
		c.roots = append(c.roots, s.Machine.System(dockerCerts))
	}
	if content == nil {
		if !s.DirGiven || s.ownCerts() {
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
		c.notes = append(c.notes, c.path+" disables CRI: only ctr --hosts-dir and nerdctl read these files")
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
		c.notes = append(c.notes, c.path+" lists several folders in config_path: "+listIsOne)
	}
	return c, nil
}

const listIsOne = "containerd 2.1 and later take the list for the name of one folder and find nothing, unless use_local_image_pull is set"

// ownCerts reports whether the folder is containerd's default one.
func (s Setting) ownCerts() bool {
	return s.Dir == filepath.Clean(s.Machine.System("/etc/containerd/certs.d"))
}

// criRoots returns the folders in config_path, or the default ones if it is
// empty. It also reports whether CRI really reads them.
//
// Versions from 2.1 on pull through the transfer service, which takes a list of
// folders for the name of one (containerd#12415) and finds nothing. The default
// of 2.2 and later is such a list.
func (s Setting) criRoots(read map[string]any) (roots []string, named, works bool) {
	registry := tableAt(read, append(criSection(read), "registry")...)
	set, isSet := registry["config_path"].(string)
	for _, root := range splitList(set) {
		roots = append(roots, filepath.Clean(root))
	}
	named = roots != nil
	if !named && s.ownCerts() && len(tableOf(registry["mirrors"])) == 0 && (s.Version.AtLeast(2, 3) || s.Version.AtLeast(2, 2) && !isSet) {
		roots = []string{s.Dir, s.Machine.System(dockerCerts)}
	}
	listed := !s.Version.AtLeast(2, 1) || pullsLocally(read)
	return roots, named, len(roots) == 1 || len(roots) > 1 && listed
}

// pullsLocally reports whether CRI does not use the transfer service: because
// it is configured so, or because a setting is one that the service does not
// support.
func pullsLocally(read map[string]any) bool {
	section := criSection(read)
	images := tableAt(read, section...)
	is := func(key string, want any) bool {
		return images[key] == want || tableOf(images["containerd"])[key] == want // the place before version 3
	}
	downloads, limited := images["max_concurrent_downloads"].(int64)
	registry := tableOf(images["registry"])
	return is("use_local_image_pull", true) || is("discard_unpacked_layers", true) || is("image_pull_with_sync_fs", true) ||
		is("disable_snapshot_annotations", false) || limited && downloads != 3 ||
		len(tableOf(registry["configs"])) > 0 || len(tableOf(registry["auths"])) > 0
}

// criFile returns the file whose settings for CRI's registries count: the main
// file, or the last of its imports that has that section. Before 2.0, such an
// import replaces the whole section of the main file.
func (s Setting) criFile(path string, content []byte) (string, []byte, error) {
	read, err := readTOML(content)
	if err != nil {
		return path, content, nil //nolint:nilerr // errors in the file are reported later
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

// criSection returns the path of the section for images, by the version of the
// config.toml.
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

// criConfigPath makes CRI read hosts.toml files in a folder.
//
// config_path together with the older mirrors and configs.tls is an error:
// containerd does not load the plugin, and the node has no images. So these
// settings move into that folder too.
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
				Problem: err.Error(), Fix: "add this by hand",
				Lines: "[" + section[0] + "." + quote(section[1]) + ".registry]\n  " + setting,
			}
		}
		return Change{Content: content, Undo: Undo{Kind: undoMarked}}, nil
	}
}

// setConfigPath replaces an empty setting, or adds it at the start of the
// table, or adds the table at the end.
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

// criNow returns the configuration that CRI reads, or nil if there is none.
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
