package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Mistake is one thing that is wrong in a configuration.
type Mistake struct {
	Key     string // the path of the key, as in upstreams[1].max_requests
	Line    int    // in the file; 0 where it did not come from a file's line
	Problem string // what is wrong
	Mend    string // what would be right
	// Origin is where the value came from.
	Origin Origin
}

// Error says what is wrong and what would be right, in one line.
func (m Mistake) Error() string {
	var b strings.Builder
	if m.Origin.Kind != FromDefault {
		b.WriteString(m.Origin.place() + ": ")
	}
	if m.Key != "" {
		b.WriteString(m.Key + ": ")
	}
	b.WriteString(m.Problem)
	if m.Mend != "" {
		b.WriteString("; " + m.Mend)
	}
	return b.String()
}

// Mistakes is everything that is wrong in a configuration: those of the file
// by line, then those of the environment, then those of flags.
type Mistakes []Mistake

func (ms Mistakes) Error() string {
	if len(ms) == 1 {
		return "the configuration has a mistake:\n  " + ms[0].Error()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "the configuration has %d mistakes:", len(ms))
	for _, m := range ms {
		b.WriteString("\n  " + m.Error())
	}
	return b.String()
}

// report collects mistakes, at most one for a key and all below it: what
// follows from a mistake is noise beside it.
type report struct {
	places map[string]Origin
	found  Mistakes
}

// add notes a mistake in the value of key, at the place that value came from.
func (r *report) add(key, problem, mend string) {
	r.addAt(r.origin(key), key, problem, mend)
}

func (r *report) addAt(at Origin, key, problem, mend string) {
	for _, m := range r.found {
		if m.Key != "" && (m.Key == key || strings.HasPrefix(key, m.Key+".") || strings.HasPrefix(key, m.Key+"[")) {
			return
		}
	}
	r.found = append(r.found, Mistake{Key: key, Line: at.Line, Problem: problem, Mend: mend, Origin: at})
}

// place notes where a key, with all that its list holds, comes from instead.
func (r *report) place(key string, from Origin) {
	for known := range r.places {
		if strings.HasPrefix(known, key+"[") {
			delete(r.places, known)
		}
	}
	r.places[key] = from
}

// origin is where a key, or else the table or list it belongs to, came from.
func (r *report) origin(key string) Origin {
	for key != "" {
		if at, ok := r.places[key]; ok {
			return at
		}
		key = key[:max(strings.LastIndexAny(key, ".["), 0)]
	}
	return Origin{}
}

// err is nil where nothing was found.
func (r *report) err() error {
	if len(r.found) == 0 {
		return nil
	}
	slices.SortStableFunc(r.found, func(a, b Mistake) int {
		return cmp.Or(cmp.Compare(a.Origin.Kind, b.Origin.Kind), cmp.Compare(a.Line, b.Line))
	})
	return r.found
}

// quoted shows a value that somebody wrote, cut where it is endless.
func quoted(text string) string {
	const most = 80
	if len(text) > most {
		return strconv.Quote(text[:most]) + "…"
	}
	return strconv.Quote(text)
}
