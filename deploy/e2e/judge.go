package e2e

import (
	"errors"
	"fmt"
	"strings"
)

// phases are when a client pulls.
var phases = []string{"first", "second", "stale", "stopped"}

// judgement is what became of a client's pull in one phase.
type judgement struct {
	mark       string // for the table
	complaints []string
}

const (
	fine   = "✓" // it came through
	better = "+" // it came through, though straight it did not come
	barred = "–" // it does not come straight either
	wrong  = "✗"
)

// judge compares what came through with what came straight.
func judge(straight, through []step) judgement {
	v := judgement{mark: fine}
	got := map[string]step{}
	for _, s := range through {
		got[s.what] = s
	}
	failed := false
	for _, want := range straight {
		have, asked := got[want.what]
		switch {
		case want.err != nil:
			failed = true
			v.claims(want, have, asked)
		case !asked:
			v.complain("%s: straight it came; through it was not reached", want.what)
		case have.err != nil:
			v.complain("%s: straight it came; through: %v", want.what, have.err)
		case have.list:
			for line := range strings.SplitSeq(want.value, "\n") {
				if line != "" && !strings.Contains("\n"+have.value+"\n", "\n"+line+"\n") {
					v.complain("%s: straight it lists %s; through it does not", want.what, line)
				}
			}
		case have.value != want.value:
			v.complain("%s: straight it is %s; through %s", want.what, want.value, have.value)
		}
	}
	for _, have := range through {
		if errors.Is(have.err, errOther) {
			v.complain("%s: through: %v", have.what, have.err)
		}
	}
	switch {
	case len(v.complaints) > 0:
		v.mark = wrong
	case failed && whole(through):
		v.mark = better
	case failed:
		v.mark = barred
	}
	return v
}

// claims looks for an absence that only the mirror speaks of.
func (v *judgement) claims(want, have step, asked bool) {
	switch {
	case !asked || absent(want.err):
	case have.err != nil && absent(have.err):
		v.complain("%s: straight: %v; through an absence is claimed: %v", want.what, want.err, have.err)
	case have.err == nil && have.list && have.value == "":
		v.complain("%s: straight: %v; through an empty list is claimed", want.what, want.err)
	}
}

// still compares what comes through now with what came through before.
func still(before, now []step) judgement {
	v := judge(before, now)
	for i, complaint := range v.complaints {
		v.complaints[i] = strings.ReplaceAll(complaint, "straight", "before")
	}
	return v
}

func (v *judgement) complain(format string, args ...any) {
	v.complaints = append(v.complaints, fmt.Sprintf(format, args...))
}

func whole(steps []step) bool {
	for _, s := range steps {
		if s.err != nil {
			return false
		}
	}
	return len(steps) > 0
}
