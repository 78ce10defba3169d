package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// result is a client's line on the page of results.
type result struct {
	client, version, how, upstream string
	first, fresh, stale            string // what the upstream was asked
	stopped, crashed, ran          bool
}

type results struct {
	mu    sync.Mutex
	lines []result
}

func (r *results) add(line result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, line)
}

// write writes the page where all of the clients have passed.
func (r *results) write(t *testing.T, rows int) {
	t.Helper()
	if t.Failed() || len(r.lines) != rows {
		t.Log("not every client has passed: the page of results stays as it was")
		return
	}
	slices.SortFunc(r.lines, func(a, b result) int { return strings.Compare(strings.ToLower(a.client), strings.ToLower(b.client)) })
	var b strings.Builder
	b.WriteString(`# What works through it

Written by ` + "`deploy/e2e/run`" + `. Each client pulls an image of two platforms and six layers from each of the registries that it can
be led through the mirror to; what arrives is compared with what was pushed, digest by digest. The columns say what the
upstream was asked meanwhile.

| client | version | led by | upstream | first pull | second pull | when stale | upstream stopped | after ` + "`kill -9`" + `, upstream stopped | image run |
|---|---|---|---|---|---|---|---|---|---|
`)
	for _, line := range r.lines {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", line.client, line.version, line.how, line.upstream,
			line.first, line.fresh, line.stale, whether(line.stopped, "pulled"), whether(line.crashed, "pulled"), whether(line.ran, "yes"))
	}
	if err := os.WriteFile("RESULTS.md", []byte(b.String()), 0o644); err != nil {
		t.Error(err)
	}
}

func whether(so bool, word string) string {
	if so {
		return word
	}
	return ""
}
