package e2e

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
)

// parsers are the results of the tests that ask runtimes' own libraries and
// programs what they make of the files that are made for them.
var parsers struct {
	mu    sync.Mutex
	cells map[string]map[string]string // by row, and by the addresses of entrepot
}

// parserRows are the runtimes with what reads their files, as these tests name
// them.
var parserRows = []string{
	"buildah | containers/image", "BuildKit, buildx | BuildKit's resolver", "containerd | its own resolver", "CRI-O | containers/image",
	"Docker before 29 | `dockerd --validate`", "k3s | wharfie", "Podman | containers/image", "rke2 | wharfie", "skopeo | containers/image",
	"Talos 1.11 | Talos' machinery", "Talos 1.12 | Talos' machinery",
}

var parserColumns = []string{"by a name", "by HTTPS with a private CA", "by IPv6", "by two addresses", "on loopback", "on loopback by HTTPS"}

// noted adds a cell to the page once the subtest is over, and has passed.
func (w *surroundings) noted(t *testing.T, row string, by reached) {
	t.Helper()
	w.notedAs(t, row, by, "")
}

// notedAs is noted, with the cell's words.
func (w *surroundings) notedAs(t *testing.T, row string, by reached, cell string) {
	t.Helper()
	if !slices.Contains(parserRows, row) {
		t.Fatalf("no row is called %q", row)
	}
	before := w.questions.Load()
	t.Cleanup(func() {
		if t.Failed() {
			return
		}
		if n := w.questions.Load() - before; cell == "" && n > 0 {
			cell = fmt.Sprintf("asked as meant, %d images", n)
		}
		cell = cmp.Or(cell, "read as meant")
		parsers.mu.Lock()
		defer parsers.mu.Unlock()
		if parsers.cells == nil {
			parsers.cells = map[string]map[string]string{}
		}
		if parsers.cells[row] == nil {
			parsers.cells[row] = map[string]string{}
		}
		parsers.cells[row][by.name] = cell
		writeParsers(t)
	})
}

// writeParsers writes the section when the last cell is known. parsers.mu is held.
func writeParsers(t *testing.T) {
	t.Helper()
	var lines strings.Builder
	for _, row := range parserRows {
		fmt.Fprintf(&lines, "| %s |", row)
		for _, column := range parserColumns {
			cell, ok := parsers.cells[row][column]
			if !ok {
				return
			}
			fmt.Fprintf(&lines, " %s |", cell)
		}
		lines.WriteString("\n")
	}
	put(t, "parsers", fmt.Sprintf(parsersHead, strings.Join(parserColumns, " | "), strings.Repeat("---|", len(parserColumns)+2))+lines.String())
}

const parsersHead = `## What reads the files of "entrepot hosts"

Where a runtime can't be had here, or knows more ways than its row above has, its own library or program reads what is printed, what is
written where there was nothing, and what is written over the files of people who have mirrors, authorities and settings of their own.
In a network made for that it is then seen who is asked, and in which order: this mirror first, by each of its addresses, their own
next, the registry itself last, with the certificates of each; for registries by name, by alias, with a port, below a path, in plain
HTTP, and one that this mirror does not know. After "--remove" the files have to be what they were.

| runtime | read by | %s |
|%s
`
