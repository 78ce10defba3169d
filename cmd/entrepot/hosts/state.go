package hosts

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
)

const (
	// StateName is the file below a runtime's folder that records which files
	// were written, so that they can be restored. No runtime reads it.
	StateName = "entrepot-hosts.json"
	// BackupEnding is added to the name of a file for its backup.
	BackupEnding = ".entrepot-backup"
)

// state is the content of StateName.
type state struct {
	About string   `json:"about"`
	Files []record `json:"files"`
}

const aboutState = `What "entrepot hosts" wrote. "entrepot hosts RUNTIME --remove" gives back what was there.`

// record describes one file.
type record struct {
	Runtime string        `json:"runtime"`
	Path    string        `json:"path"`
	Existed bool          `json:"existed"`            // the file existed before
	Before  digest.Digest `json:"original,omitempty"` // of the backup
	Written digest.Digest `json:"written"`
	Undo    Undo          `json:"undo"`
	// Folders were made for the file, the outermost first.
	Folders []string `json:"folders,omitempty"`
}

func readState(dir string) (state, error) {
	var s state
	content, err := os.ReadFile(filepath.Join(dir, StateName))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("read the record of earlier writes: %w", err)
	}
	if err := json.Unmarshal(content, &s); err != nil {
		return s, fmt.Errorf("%s can't be read: %w; move it away, and --write uses the marks in the files", filepath.Join(dir, StateName), err)
	}
	return s, nil
}

func (s state) write(dir string) error {
	name := filepath.Join(dir, StateName)
	if len(s.Files) == 0 {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	s.About = aboutState
	content, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(name, append(content, '\n'), 0o644, nil)
}

func (s state) find(path string) (record, bool) {
	i := slices.IndexFunc(s.Files, func(r record) bool { return r.Path == path })
	if i < 0 {
		return record{}, false
	}
	return s.Files[i], true
}

// with returns the state with a record added, which replaces that of the same
// path. without returns it with the record removed.
func (s state) with(r record) state {
	s = s.without(r.Path)
	s.Files = append(s.Files, r)
	return s
}

func (s state) without(path string) state {
	s.Files = slices.DeleteFunc(slices.Clone(s.Files), func(r record) bool { return r.Path == path })
	return s
}

// made reports whether entrepot made a folder.
func (s state) made(folder string) bool {
	return slices.ContainsFunc(s.Files, func(r record) bool { return slices.Contains(r.Folders, folder) })
}

// readFile returns nil and no error if there is no file.
func readFile(path string) ([]byte, error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // nil means no file
	}
	if content == nil && err == nil {
		content = []byte{}
	}
	return content, err
}

// Theirs returns what a file contains without entrepot's settings, for
// whichever runtime they are. It is nil if the user has no such file.
func (s Setting) Theirs(path string) ([]byte, error) {
	if s.blank {
		return nil, nil
	}
	now, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the existing file: %w", err)
	}
	r, known := s.state.find(path)
	return theirs(path, now, r, known, anyRuntime)
}

// theirs returns what a file contains without what was written for a runtime.
// If two runtimes share a file, settings for the other stay.
func theirs(path string, now []byte, r record, known bool, runtime string) ([]byte, error) {
	switch {
	case now == nil:
		return nil, nil
	case known && digest.FromBytes(now) == r.Written:
		if !r.Existed {
			return nil, nil
		}
		original, err := readFile(path + BackupEnding)
		switch {
		case err != nil:
			return nil, fmt.Errorf("read the backup: %w", err)
		case original != nil && digest.FromBytes(original) == r.Before:
			return original, nil
		}
	}
	undo := Undo{Kind: undoMarked} // marks are found without a record
	if known {
		undo = r.Undo
	}
	rest, err := undo.remove(now, runtime)
	var blocked Blocked
	if errors.As(err, &blocked) {
		blocked.Path = path
		return nil, blocked
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return rest, nil
}
