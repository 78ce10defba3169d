package e2e

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// results are the sections that tests have written.
var results struct {
	mu       sync.Mutex
	sections map[string]string
}

// pages are made of sections, in their order.
var pages = []struct {
	file, title string
	sections    []string
}{
	{"RESULTS.md", "What works through it", []string{"runtimes", "rows", "parsers", "pieces", "pieces by clients", "weather", "kinds", "conformance", "credentials"}},
	{"REFERRERS.md", "What clients are told of referrers", []string{"referrers", "learnt"}},
}

// put writes a section of a page, once all that it needs has passed.
func put(t *testing.T, section, text string) {
	t.Helper()
	if t.Failed() {
		t.Log("not all has passed: the page of results stays as it was")
		return
	}
	results.mu.Lock()
	defer results.mu.Unlock()
	if results.sections == nil {
		results.sections = map[string]string{}
	}
	results.sections[section] = text
}

// writePages writes the pages of a run that had everything in it.
func writePages() error {
	var failed []error
	for _, page := range pages {
		parts := []string{"# " + page.title + "\n\nWritten by `deploy/e2e/run`.\n"}
		for _, section := range page.sections {
			if part, ok := results.sections[section]; ok {
				parts = append(parts, part)
			}
		}
		if len(parts) == 1+len(page.sections) {
			failed = append(failed, os.WriteFile(page.file, []byte(strings.Join(parts, "\n")), 0o644))
		}
	}
	return errors.Join(failed...)
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
