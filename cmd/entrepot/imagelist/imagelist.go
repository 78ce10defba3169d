// Package imagelist reads which images somebody wants from the files that say
// so: plain lists, manifests of Kubernetes, and Compose files. It knows nothing
// of what a reference means.
package imagelist

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// An Entry is what a file says of one image.
type Entry struct {
	Text string // the reference as it is written
	File string
	Line int // from 1 on
}

// Where says where an entry is from, as in images.txt:3.
func (e Entry) Where() string { return fmt.Sprintf("%s:%d", e.File, e.Line) }

// Lines reads a list with an image a line. What follows a # at the beginning of a
// line or after a blank is a comment. file is how the list is called in entries.
func Lines(r io.Reader, file string) (all []Entry, err error) {
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		text := lines.Text()
		if n == 1 {
			text = strings.TrimPrefix(text, "\ufeff")
		}
		for i := range text {
			if text[i] == '#' && (i == 0 || text[i-1] == ' ' || text[i-1] == '\t') {
				text = text[:i]
				break
			}
		}
		if text = strings.TrimSpace(text); text != "" {
			all = append(all, Entry{text, file, n})
		}
	}
	if err := lines.Err(); err != nil {
		return all, fmt.Errorf("%s: %w", file, err)
	}
	return all, nil
}
