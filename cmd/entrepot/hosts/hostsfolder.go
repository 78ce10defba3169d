package hosts

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// certificates are what the library takes from a folder that has no hosts.toml:
// who signed the registry's certificate, and who the runtime is to it.
type certificates struct {
	ca     []string
	client [][2]string // certificate and key; no key: in the same file
}

// certificatesIn finds them. With names alone they are of the folder itself.
func certificatesIn(folder string, alone bool) (certificates, error) {
	var c certificates
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("look for certificates: %w", err)
	}
	named := func(name string) string {
		if alone {
			return name
		}
		return filepath.Join(folder, name)
	}
	has := func(name string) bool {
		return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == name })
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case e.IsDir():
		case strings.HasSuffix(name, ".crt"):
			c.ca = append(c.ca, named(name))
		case strings.HasSuffix(name, ".cert"):
			pair := [2]string{named(name)}
			if key := strings.TrimSuffix(name, ".cert") + ".key"; has(key) {
				pair[1] = named(key)
			}
			c.client = append(c.client, pair)
		}
	}
	return c, nil
}

func (c certificates) none() bool { return len(c.ca) == 0 && len(c.client) == 0 }

// hostFolder is the form of a registry with a port that the library looks for
// first; the other is the name itself.
func hostFolder(name string) string {
	if i := strings.LastIndex(name, ":"); i > 0 {
		return name[:i] + "_" + name[i+1:] + "_"
	}
	return name
}

// everyRegistry is the folder that counts for those that have none of their own.
const everyRegistry = "_default"

// folderOf finds the folder that the library goes by for a registry below the
// roots that it is told, without ours: empty where there is none.
func (s Setting) folderOf(roots []string, name string) (string, error) {
	for _, root := range roots {
		for _, form := range slices.Compact([]string{hostFolder(name), name, everyRegistry}) {
			folder := filepath.Join(root, form)
			theirs, err := s.isTheirs(folder)
			if err != nil {
				return "", err
			}
			if theirs {
				return folder, nil
			}
		}
	}
	return "", nil
}

// isTheirs is false for a folder that is not there, or that holds nothing but
// what entrepot put there.
func (s Setting) isTheirs(folder string) (bool, error) {
	entries, err := os.ReadDir(folder)
	if s.blank || errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for what is there: %w", err)
	}
	ours := false
	for _, e := range entries {
		path := filepath.Join(folder, e.Name())
		if e.IsDir() {
			return true, nil
		}
		content, err := s.Theirs(path)
		if e.Name() != "hosts.toml" || err != nil || content != nil {
			return true, nil //nolint:nilerr // what can't be taken apart is theirs too
		}
		ours = true
	}
	return !ours && !s.kept.made(folder), nil
}

// hostsFile is the hosts.toml of a registry below the first root, with what
// people have configured for it wherever the library finds that now.
func (s Setting) hostsFile(roots []string, h hostsTOML) (File, []string, error) {
	name := h.registry.Name
	found, err := s.folderOf(roots, name)
	if err != nil {
		return File{}, nil, err
	}
	root := roots[0]
	switch filepath.Base(found) {
	case hostFolder(name), name:
		if filepath.Dir(found) == root {
			if h.certificates, err = certificatesIn(found, true); err != nil {
				return File{}, nil, err
			}
			return File{Path: filepath.Join(found, "hosts.toml"), Edit: h.edit}, nil, nil
		}
	}
	path := filepath.Join(root, name, "hosts.toml")
	if found == "" {
		return File{Path: path, Edit: h.edit}, nil, nil
	}
	// Once there is a folder for the registry in the first root, what was found
	// elsewhere counts no more.
	if h.certificates, err = certificatesIn(found, false); err != nil {
		return File{}, nil, err
	}
	from := filepath.Join(found, "hosts.toml")
	content, err := s.Theirs(from)
	if err != nil {
		return File{}, nil, err
	}
	if content == nil {
		if h.certificates.none() {
			return File{Path: path, Edit: h.edit}, nil, nil
		}
		return File{Path: path, Edit: h.edit}, []string{fmt.Sprintf("%s names the certificates that are in %s, which counts for %s no more", path, found, name)}, nil
	}
	return File{Path: path, Edit: h.editCopyOf(from, content)},
		[]string{fmt.Sprintf("%s has what is in %s, which counts for %s no more: what changes there has to change here", path, from, name)}, nil
}

// editCopyOf makes a file of another that would not count any more beside it.
func (h hostsTOML) editCopyOf(from string, content []byte) Edit {
	return func(theirs []byte) (Change, error) {
		if theirs != nil {
			return h.edit(theirs)
		}
		if err := onlyAbsolute(content); err != nil {
			return Change{}, Blocked{Path: from, Problem: err.Error(), Mend: "name them by whole paths: the same has to stand in the folder of " + h.registry.Name}
		}
		whole, err := h.edit(content)
		if err != nil {
			return Change{}, err
		}
		// All of it is ours in this place: it goes with ours.
		rest := string(whole.Content)
		if undone, _, err := unmark(whole.Content, h.runtime); err == nil && undone != nil {
			rest = withoutMarks(rest)
		}
		return Change{Content: []byte(marked(h.runtime, rest)), Undo: Undo{Kind: undoMarked}}, nil
	}
}

func withoutMarks(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if bare := strings.TrimRight(line, "\r\n"); !beginMark.MatchString(bare) && !endMark.MatchString(bare) {
			b.WriteString(line)
		}
	}
	return b.String()
}

// onlyAbsolute makes sure that a hosts.toml means the same in another folder.
func onlyAbsolute(content []byte) error {
	read, err := readTOML(content)
	if err != nil {
		return err
	}
	var check func(value any) error
	check = func(value any) error {
		switch v := value.(type) {
		case string:
			if !filepath.IsAbs(v) {
				return fmt.Errorf("it names the file %s without its folder", quote(v))
			}
		case []any:
			for _, item := range v {
				if err := check(item); err != nil {
					return err
				}
			}
		}
		return nil
	}
	tables := []any{read}
	for _, host := range tableAt(read, "host") {
		tables = append(tables, host)
	}
	for _, table := range tables {
		t, _ := table.(map[string]any)
		if err := errors.Join(check(t["ca"]), check(t["client"])); err != nil {
			return err
		}
	}
	return nil
}
