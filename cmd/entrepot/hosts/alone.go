package hosts

import "errors"

// alone returns the edit for a file in a format with comments that contains
// only entrepot's settings. It does not merge: an existing file has to be
// merged by hand.
//
// Runtimes whose files can be merged use an edit of their own instead.
func alone(runtime, text string) Edit {
	content := marked(runtime, text)
	return func(theirs []byte) (Change, error) {
		if theirs != nil {
			return Change{}, Blocked{Problem: "the file exists and was not made by entrepot", Fix: `add by hand what "entrepot hosts ` + runtime + `" prints, or move it away`}
		}
		return Change{Content: []byte(content), Undo: Undo{Kind: undoMarked}}, nil
	}
}

// comesAsWritten reports an error unless the files are as --write would write
// them.
func (r Runtime) comesAsWritten(s Setting) error {
	layout, err := r.Files(s)
	if err != nil {
		return err
	}
	for _, f := range layout.Files {
		step, err := s.planFile(r.owner(), f)
		if err != nil {
			return err
		}
		if step.Changes() {
			return errors.New(f.Path + " is not as \"entrepot hosts " + r.Name + " --write\" would write it")
		}
	}
	return nil
}
