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

// certificates are what the library reads from a folder without a hosts.toml:
// the CAs of the registry's certificate, and client certificates.
type certificates struct {
	ca     []string
	client [][2]string // certificate and key; no key: in the same file
}

// certificatesIn returns the certificates in a folder. With names only, paths
// are relative to the folder.
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

// hostFolder returns the folder name that the library looks for first for a
// registry with a port. The other is the name itself.
func hostFolder(name string) string {
	if i := strings.LastIndex(name, ":"); i > 0 {
		return name[:i] + "_" + name[i+1:] + "_"
	}
	return name
}

// everyRegistry is the folder for registries without a folder of their own.
const everyRegistry = "_default"

// folderOf returns the folder that the library uses for a registry below the
// given roots, without entrepot's settings. It is empty if there is none.
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

// isTheirs reports whether a folder exists and contains more than what entrepot
// wrote to it.
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
			return true, nil //nolint:nilerr // what can't be separated belongs to the user too
		}
		ours = true
	}
	return !ours && !s.state.made(folder), nil
}

// hostsFile returns the hosts.toml of a registry below the first root,
// including the settings that the library finds for the registry now.
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
	// Once the registry has a folder in the first root, settings elsewhere no
	// longer count.
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
		return File{Path: path, Edit: h.edit}, []string{fmt.Sprintf("%s names the certificates that are in %s, which no longer counts for %s", path, found, name)}, nil
	}
	return File{Path: path, Edit: h.editCopyOf(from, content)},
		[]string{fmt.Sprintf("%s has what is in %s, which no longer counts for %s: make later changes here too", path, from, name)}, nil
}

// editCopyOf returns the edit for a copy of a file that will no longer count.
func (h hostsTOML) editCopyOf(from string, content []byte) Edit {
	return func(theirs []byte) (Change, error) {
		if theirs != nil {
			return h.edit(theirs)
		}
		if err := onlyAbsolute(content); err != nil {
			return Change{}, Blocked{Path: from, Problem: err.Error(), Fix: "use absolute paths: the same settings have to work in the folder of " + h.registry.Name}
		}
		whole, err := h.edit(content)
		if err != nil {
			return Change{}, err
		}
		// All of it is entrepot's at this place, so all of it is removed later.
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

// onlyAbsolute checks that a hosts.toml means the same in another folder.
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
