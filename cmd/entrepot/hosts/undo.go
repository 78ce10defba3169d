package hosts

import (
	"bytes"
	"errors"
)

// Undo says how to remove entrepot's settings from a file that has been edited
// since it was written. A file that was not edited is restored from its backup.
type Undo struct {
	Kind undoKind `json:"kind"`
	// Lists are the items that were added to lists of strings under keys of a
	// JSON object.
	Lists map[string][]string `json:"lists,omitempty"`
}

type undoKind string

const (
	undoMarked undoKind = "marked" // entrepot's lines are between marks
	undoLists  undoKind = "lists"  // entrepot's settings are items of lists in a JSON object
	undoWhole  undoKind = "whole"  // the whole file is entrepot's
)

// remove returns a file without a runtime's settings, or nil if nothing is
// left.
func (u Undo) remove(content []byte, runtime string) ([]byte, error) {
	switch u.Kind {
	case undoMarked:
		rest, _, err := unmark(content, runtime)
		return rest, err
	case undoLists:
		return removeFromLists(content, u.Lists)
	case undoWhole:
		return nil, errors.New("it has been edited since entrepot wrote it, and its format has no marks: remove by hand what is not yours")
	}
	return nil, errors.New("its record was written by a newer entrepot")
}

// orNil returns nil if there is only white space.
func orNil(content []byte) []byte {
	if len(bytes.TrimSpace(content)) == 0 {
		return nil
	}
	return content
}
