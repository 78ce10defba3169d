package hosts

import (
	"bytes"
	"errors"
)

// Undo says how ours comes out of a file that somebody else has edited since it
// was written. One that nobody has edited is given back from its backup.
type Undo struct {
	Kind undoKind `json:"kind"`
	// Lists are what was put into arrays of strings that are the values of a
	// JSON object's keys.
	Lists map[string][]string `json:"lists,omitempty"`
}

type undoKind string

const (
	undoMarked undoKind = "marked" // ours stands between marks
	undoLists  undoKind = "lists"  // ours is items of lists in a JSON object
	undoWhole  undoKind = "whole"  // the file is ours, and nobody else's
)

// take returns what is left of a file without what is a runtime's, nil where
// that is nothing.
func (u Undo) take(content []byte, runtime string) ([]byte, error) {
	switch u.Kind {
	case undoMarked:
		rest, _, err := unmark(content, runtime)
		return rest, err
	case undoLists:
		return takeFromLists(content, u.Lists)
	case undoWhole:
		return nil, errors.New("it has been edited since entrepot wrote it, and its format has no marks: take out by hand what is not yours")
	}
	return nil, errors.New("what is recorded of it is of a newer entrepot")
}

// orNil is nil for what holds nothing.
func orNil(content []byte) []byte {
	if len(bytes.TrimSpace(content)) == 0 {
		return nil
	}
	return content
}
