package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Mistake is a mistake in a configuration.
type Mistake struct {
	Key     string // the path of the key, as in upstreams[1].max_requests
	Line    int    // in the file, or 0
	Problem string // what is wrong
	Fix     string // how to fix it
	// Origin is the origin of the value.
	Origin Origin
}

// Error returns the problem and the fix in one line.
func (m Mistake) Error() string {
	var b strings.Builder
	if m.Origin.Kind != FromDefault {
		b.WriteString(m.Origin.text() + ": ")
	}
	if m.Key != "" {
		b.WriteString(m.Key + ": ")
	}
	b.WriteString(m.Problem)
	if m.Fix != "" {
		b.WriteString("; " + m.Fix)
	}
	return b.String()
}

// Mistakes are all mistakes in a configuration: those of the file by line, then
// those of the environment, then those of flags.
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

// report collects mistakes, at most one for a key and everything below it,
// because further ones would only be consequences.
type report struct {
	places map[string]Origin
	found  Mistakes
}

// add reports a mistake in the value of key, with the origin of that value.
func (r *report) add(key, problem, fix string) {
	r.addAt(r.origin(key), key, problem, fix)
}

func (r *report) addAt(at Origin, key, problem, fix string) {
	for _, m := range r.found {
		if m.Key != "" && (m.Key == key || strings.HasPrefix(key, m.Key+".") || strings.HasPrefix(key, m.Key+"[")) {
			return
		}
	}
	r.found = append(r.found, Mistake{Key: key, Line: at.Line, Problem: problem, Fix: fix, Origin: at})
}

// setOrigin overrides the origin of a key and everything below it.
func (r *report) setOrigin(key string, from Origin) {
	for known := range r.places {
		if strings.HasPrefix(known, key+"[") {
			delete(r.places, known)
		}
	}
	r.places[key] = from
}

// origin returns the origin of a key, or else of the table or list that it
// belongs to.
func (r *report) origin(key string) Origin {
	for key != "" {
		if at, ok := r.places[key]; ok {
			return at
		}
		key = key[:max(strings.LastIndexAny(key, ".["), 0)]
	}
	return Origin{}
}

// err returns nil if there are no mistakes.
func (r *report) err() error {
	if len(r.found) == 0 {
		return nil
	}
	slices.SortStableFunc(r.found, func(a, b Mistake) int {
		return cmp.Or(cmp.Compare(a.Origin.Kind, b.Origin.Kind), cmp.Compare(a.Line, b.Line))
	})
	return r.found
}

// quoted quotes a value, and shortens it if it is very long.
func quoted(text string) string {
	const most = 80
	if len(text) > most {
		return strconv.Quote(text[:most]) + "…"
	}
	return strconv.Quote(text)
}
