package upstream

import (
	"math/rand/v2"
	"time"
)

// forgottenAfter is after how long nothing is concluded from an earlier failure.
// A question that consists of several requests would be answered by the probe,
// and rejected by the others.
const forgottenAfter = time.Minute

// gate is closed until a time. After that, or at a probe before, one request
// may pass. If none has asked for a minute after that time, it is open.
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
	if g.isOpen() {
		return 0, false
	}
	left = time.Until(g.until)
	return max(left, time.Second), g.probing || left > 0 && time.Until(g.probe) > 0
}

// pass is called for a request that may pass. It reports whether the request is
// the probe.
func (g *gate) pass() (probe bool) {
	g.probing = !g.isOpen()
	return g.probing
}

func (g *gate) isOpen() bool {
	return g.until.IsZero() || !g.probing && time.Since(g.until) > forgottenAfter
}
