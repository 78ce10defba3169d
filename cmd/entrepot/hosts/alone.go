package hosts

import "errors"

// alone is a file of a format with comments that holds nothing but ours. It is
// merged into nothing: where people have such a file, they merge by hand.
//
// A runtime whose files are merged into has an edit of its own in place of it.
func alone(runtime, text string) Edit {
	content := marked(runtime, text)
	return func(theirs []byte) (Change, error) {
		if theirs != nil {
			return Change{}, Blocked{Problem: "it is there already and not made by entrepot", Mend: `add by hand what "entrepot hosts ` + runtime + `" prints, or move it away`}
		}
		return Change{Content: []byte(content), Undo: Undo{Kind: undoMarked}}, nil
	}
}

// comesAsWritten judges by whether the files are as they would be written.
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
