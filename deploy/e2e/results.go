package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// page is the page of results: a section a test.
var page struct {
	mu       sync.Mutex
	sections map[string]string
}

// sections are all that make the page, in their order.
var sections = []string{"runtimes", "kinds", "conformance", "credentials"}

// put writes a section of the page, once all that it needs has passed.
func put(t *testing.T, section, text string) {
	t.Helper()
	if t.Failed() {
		t.Log("not all has passed: the page of results stays as it was")
		return
	}
	page.mu.Lock()
	defer page.mu.Unlock()
	if page.sections == nil {
		page.sections = map[string]string{}
	}
	page.sections[section] = text
}

// writePage writes the page of a run that had everything in it.
func writePage() error {
	text := "# What works through it\n\nWritten by `deploy/e2e/run`.\n"
	for _, section := range sections {
		part, ok := page.sections[section]
		if !ok {
			return nil
		}
		text += "\n" + part
	}
	return os.WriteFile("RESULTS.md", []byte(text), 0o644)
}

// table is one that goroutines add lines to.
type table struct {
	mu    sync.Mutex
	lines [][]string
}

func (r *table) add(columns ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, columns)
}

// sorted is the table in Markdown, by its first columns.
func (r *table) sorted(columns ...string) string {
	slices.SortFunc(r.lines, func(a, b []string) int {
		return strings.Compare(strings.ToLower(strings.Join(a, "\x00")), strings.ToLower(strings.Join(b, "\x00")))
	})
	var b strings.Builder
	fmt.Fprintf(&b, "| %s |\n|%s\n", strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	for _, line := range r.lines {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(line, " | "))
	}
	return b.String()
}

func whether(so bool, word string) string {
	if so {
		return word
	}
	return ""
}
