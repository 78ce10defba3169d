package e2e

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// piecesPage is the section of the page of results on downloads in pieces.
type piecesPage struct {
	order []string // of the rows, by their names

	mu  sync.Mutex
	all []pieceFigures
}

func (p *piecesPage) add(f pieceFigures) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = append(p.all, f)
}

// String is what was counted, and who asked for what, in the order of the rows.
func (p *piecesPage) String() string {
	slices.SortFunc(p.all, func(a, b pieceFigures) int {
		return cmp.Compare(slices.Index(p.order, a.name), slices.Index(p.order, b.name))
	})
	var b strings.Builder
	b.WriteString("| note | what reads | blob | a node reads | without a mirror | through entrepot, cold | ratio | at most | warm | upstream stopped | nobody read it |\n" +
		"|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, f := range p.all {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %.3f of %s | %.2f | %s | %s | %s |\n", f.note, f.name, grouped(f.blob), grouped(f.read),
			grouped(f.straight.bytes()), grouped(f.cold.bytes()), f.ratio(), f.heldTo(), f.most, grouped(f.warm.bytes()),
			"served, after a restart too", whether(f.look, "502"))
	}
	b.WriteString("\n| what reads | who asks | asks the upstream for |\n|---|---|---|\n")
	for _, f := range p.all {
		fmt.Fprintf(&b, "| %s | the client, without a mirror | %s |\n| | entrepot | %s |\n", f.name, f.straight.asked(), f.cold.asked())
	}
	return b.String()
}

// grouped is a number that can be read.
func grouped(n int64) string {
	text := strconv.FormatInt(n, 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// asked are the requests by what they ask for, equal ones as one, and a few of many.
func (all requests) asked() string {
	type question struct {
		order int64 // by the first byte
		text  string
		times int
		bytes int64
	}
	var questions []*question
	known := map[string]*question{}
	for _, r := range all {
		q := question{text: "no blob", order: -2}
		if strings.Contains(r.path, "/blobs/") {
			q.text, q.order = "`"+shortened(r.rng)+"`", r.first()
			if r.rng == "" {
				q.text, q.order = "all", -1
			}
			if r.method != "GET" {
				q.text = r.method
			}
		}
		if known[q.text] == nil {
			known[q.text] = &q
			questions = append(questions, &q)
		}
		known[q.text].times++
		known[q.text].bytes += r.bytes
	}
	slices.SortStableFunc(questions, func(a, b *question) int { return cmp.Compare(a.order, b.order) })
	const first, last = 6, 1 // that are shown
	var parts []string
	for i, q := range questions {
		if hidden := len(questions) - first - last; i == first && hidden > 0 {
			parts = append(parts, fmt.Sprintf("… %d more …", hidden))
		}
		if i >= first && i < len(questions)-last {
			continue
		}
		text := q.text
		if q.times > 1 {
			text = fmt.Sprintf("%d × %s", q.times, text)
		}
		parts = append(parts, fmt.Sprintf("%s: %s", text, grouped(q.bytes)))
	}
	return strings.Join(parts, "; ")
}

// first is the first byte that is asked for.
func (r request) first() int64 {
	from, _, _ := strings.Cut(strings.TrimPrefix(r.rng, "bytes="), "-")
	n, err := strconv.ParseInt(from, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// lines are the requests as they came, a few of many.
func (all requests) lines() string {
	const first, last = 8, 2
	var lines []string
	for i, r := range all {
		if i == first && len(all) > first+last {
			lines = append(lines, fmt.Sprintf("… and %d more", len(all)-first-last))
		}
		if i < first || i >= len(all)-last {
			lines = append(lines, fmt.Sprintf("%s %s %s: %d, %d bytes", r.method, r.path, shortened(r.rng), r.status, r.bytes))
		}
	}
	return strings.Join(lines, "\n")
}

// shortened is the value of a Range, without most of many ranges.
func shortened(ranges string) string {
	const most = 3
	parts := strings.Split(ranges, ",")
	if len(parts) <= most {
		return ranges
	}
	return fmt.Sprintf("%s,… (%d ranges)", strings.Join(parts[:most-1], ","), len(parts))
}
