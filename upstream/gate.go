package upstream

import (
	"math/rand/v2"
	"time"
)

// gate is closed until a time. After that, or at a probe before, one request
// may pass.
type gate struct {
	until, probe time.Time
	probing      bool
}

// closedFor returns a gate that is closed for about the duration rest, with
// jitter.
func closedFor(rest time.Duration) gate {
	at := time.Now().Add(rest/2 + rand.N(rest))
	return gate{until: at, probe: at}
}

// closed reports whether no request may pass, and for how long.
func (g *gate) closed() (left time.Duration, closed bool) {
	if g.until.IsZero() {
		return 0, false
	}
	left = time.Until(g.until)
	return max(left, time.Second), g.probing || left > 0 && time.Until(g.probe) > 0
}

// pass is called for a request that may pass. It reports whether the request is
// the probe.
func (g *gate) pass() (probe bool) {
	g.probing = !g.until.IsZero()
	return g.probing
}
