package hosts

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Printed is a runtime's configuration as text, for a machine without existing
// files.
type Printed struct {
	Text string
	// Names are the names of the files, if the text can't have comments that
	// name them.
	Names []string
	Notes []string
}

// Print returns the text without reading existing files. In a format without
// comments, only one file is printed, so that the output is the file.
func (r Runtime) Print(s Setting) (Printed, error) {
	s.blank, s.state = true, state{}
	if !s.DirGiven {
		s.Dir = r.Place(s.Machine)
	}
	layout, err := r.Files(s)
	if err != nil {
		return Printed{}, err
	}
	p := Printed{Notes: layout.Notes}
	if r.Text != nil {
		p.Text, err = r.Text(s)
		return p, err
	}
	var b strings.Builder
	for _, f := range layout.Files {
		change, err := f.Edit(nil)
		switch {
		case err != nil:
			return p, err
		case f.Extra:
		case filepath.Ext(f.Path) == ".json":
			p.Text, p.Names = string(change.Content), []string{f.Path}
			return p, nil
		default:
			if b.Len() > 0 {
				b.WriteString("\n")
			}
			fmt.Fprintf(&b, "# %s\n%s", f.Path, change.Content)
		}
	}
	p.Text = b.String()
	return p, nil
}
