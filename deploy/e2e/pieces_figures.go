package e2e

import "testing"

// pieceLimit is what a way of reading in pieces is held to.
type pieceLimit struct {
	note string // the number of the client among the notes of the field
	name string
	// most is how much may cross the line: of the blob, or of the bytes that were
	// read where the client only looks at it.
	most float64
	look bool
}

// pieceFigures are what was counted at the upstream.
type pieceFigures struct {
	pieceLimit
	blob                 int64 // its size
	read                 int64 // by one node
	straight, cold, warm requests
}

func (l pieceLimit) heldTo() string {
	if l.look {
		return "the bytes read"
	}
	return "the blob"
}

func (f pieceFigures) ratio() float64 {
	of := f.blob
	if f.look {
		of = f.read
	}
	return float64(f.cold.bytes()) / float64(of)
}

// checkStraight checks that the client does what the row is about.
func (f pieceFigures) checkStraight(t *testing.T) {
	t.Helper()
	if len(f.straight.where(func(r request) bool { return r.rng != "" })) == 0 {
		t.Errorf("the client asks for no range:\n%s", f.straight.lines())
	}
	const whole = 0.6 // From there on it would be more than a look.
	if f.look && float64(f.read) > whole*float64(f.blob) {
		t.Errorf("the client reads %d of %d bytes, which is more than a look:\n%s", f.read, f.blob, f.straight.lines())
	}
}

// checkCold checks what crossed the line for what had never been seen.
func (f pieceFigures) checkCold(t *testing.T) {
	t.Helper()
	checkNobodyElse(t, f.cold)
	t.Logf("straight %d bytes; through the mirror %d, %.3f of %s, of which a node reads %d",
		f.straight.bytes(), f.cold.bytes(), f.ratio(), f.heldTo(), f.read)
	if f.ratio() > f.most {
		t.Errorf("%.3f of %s crossed the line, and %.2f at most may: the upstream was asked\n%s", f.ratio(), f.heldTo(), f.most, f.cold.lines())
	}
}

// checkWarm checks that nothing crossed the line again.
func (f pieceFigures) checkWarm(t *testing.T) {
	t.Helper()
	if got := f.warm.bytes(); got > 0 {
		t.Errorf("%d bytes crossed the line again: the upstream was asked\n%s", got, f.warm.lines())
	}
}
