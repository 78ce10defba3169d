package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// phases are when a client pulls.
var phases = []string{"first", "second", "stale", "stopped"}

// judgement is what became of a client's pull in one phase.
type judgement struct {
	truer      bool   // what a tag names came, where straight something else came for it: what hangs on that is not missed
	mark       string // for the table
	complaints []string
}

// claimed ends complaints about an absence that only the mirror speaks of.
const claimed = "an absence is claimed"

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
	failed, mended := false, true
	for _, want := range straight {
		have, asked := got[want.what]
		if want.err != nil {
			failed = true
			mended = mended && asked && have.err == nil
			v.claims(want, have, asked)
			continue
		}
		v.compare(want, have, asked)
	}
	v.others(straight, through)
	switch {
	case len(straight) == 0:
		v.mark = ""
	case len(v.complaints) > 0:
		v.mark = wrong
	case failed && mended:
		v.mark = better
	case failed:
		v.mark = barred
	}
	return v
}

func (v *judgement) compare(want, have step, asked bool) {
	switch {
	case want.list && want.value == "" && strings.Contains(want.what, "referrers"):
		// Some libraries list none where they were refused. Unknown is not none.
	case !asked && v.truer:
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
	case have.value != want.value && have.value == right:
		v.truer = true
	case have.value != want.value:
		v.complain("%s: straight it is %s; through %s", want.what, want.value, have.value)
	}
}

// impatient judges a moment in which the registry asks for patience.
func impatient(straight, through []step) judgement {
	v := judgement{mark: barred}
	for _, want := range straight {
		for _, have := range through {
			if have.what == want.what {
				v.claims(want, have, true)
			}
		}
	}
	v.others(straight, through)
	if whole(through) {
		v.mark = fine
	}
	if len(v.complaints) > 0 {
		v.mark = wrong
	}
	return v
}

// others looks for bytes that are not what they should be.
func (v *judgement) others(straight, through []step) {
	for _, have := range through {
		same := slices.ContainsFunc(straight, func(s step) bool { return s.what == have.what && errors.Is(s.err, errOther) && s.value == have.value })
		if errors.Is(have.err, errOther) && !same {
			v.complain("%s: through: %v", have.what, have.err)
		}
	}
}

// claims looks for an absence that only the mirror speaks of.
func (v *judgement) claims(want, have step, asked bool) {
	switch {
	case !asked || want.err != nil && absent(want.err):
	case want.err != nil && have.err != nil && absent(have.err):
		v.complain("%s: straight: %v; through "+claimed+": %v", want.what, want.err, have.err)
	case want.err != nil && have.err == nil && have.list && have.value == "":
		v.complain("%s: straight: %v; through an empty list: "+claimed, want.what, want.err)
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
