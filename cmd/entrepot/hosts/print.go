package hosts

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Printed is what a runtime reads, as text, where it has none of its own yet.
type Printed struct {
	Text string
	// Names are the files that the text is for where it does not say so itself,
	// for its format has no comments.
	Names []string
	Notes []string
}

// Print makes the text without a look at what is on disk. A file whose format
// has no comments is printed alone: what is printed can be taken for the file.
func (r Runtime) Print(s Setting) (Printed, error) {
	s.blank, s.kept = true, state{}
	if !s.Told {
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
		case f.Aside:
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
