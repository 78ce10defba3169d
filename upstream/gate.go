package upstream

import (
	"math/rand/v2"
	"time"
)

// gate is closed until a time. Then, or at a probe before, one may pass.
type gate struct {
	until, probe time.Time
	probing      bool
}

// closedFor is a gate that is closed for about as long as rest.
func closedFor(rest time.Duration) gate {
	at := time.Now().Add(rest/2 + rand.N(rest))
	return gate{until: at, probe: at}
}

// closed says whether nobody may pass, and for how long yet.
func (g *gate) closed() (left time.Duration, closed bool) {
	if g.until.IsZero() {
		return 0, false
	}
	left = time.Until(g.until)
	return max(left, time.Second), g.probing || left > 0 && time.Until(g.probe) > 0
}

// enter is for who may pass. It says whether it is the one that tries.
func (g *gate) enter() (probe bool) {
	g.probing = !g.until.IsZero()
	return g.probing
}
