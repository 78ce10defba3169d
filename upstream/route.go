package upstream

import (
	"errors"
	"fmt"
	"time"
)

const (
	// silentAfter is how long a question to the Referrers API may be out before
	// the others do not wait for the same.
	silentAfter = 5 * time.Second
	// routeBreaksAfter is how many questions in a row have to fail. One page in
	// place of an answer is often followed by the answer.
	routeBreaksAfter = 2
)

// route is the gate of an endpoint's Referrers API, which may fail or hang
// where everything else works.
//
//   - Open: every question passes. Two in a row that end without a registry's
//     word close it for a second; one that is silent, while it is still out, for
//     half a minute.
//   - Closed: nobody passes, and the answer is at once that nothing is known.
//   - Half open, when its time is over: one question tries, and nobody else
//     passes meanwhile. Where it fails the gate is closed for twice as long as
//     before, half a minute at most; where it says nothing of the route the next
//     one tries.
//
// An answer opens it, whenever it comes: a list that took long is proof that
// the route works.
type route struct {
	gate
	rest    time.Duration
	why     string    // it is closed
	heard   time.Time // when it answered last
	signs   int       // of failure since then
	failing string    // the repository among them that answered 500 last
}

// note takes in how a question ended that was not ended by its caller.
func (r *route) note(p *pass, err error) {
	var failing *failingError
	switch {
	case isWord(err):
		*r = route{heard: time.Now()}
	case p.silent, !failedRoute(err), !p.route && !r.until.IsZero():
		// It is noted already, or says nothing of the route.
	case !p.route && errors.As(err, &failing) && r.failing == failing.repo:
		// Perhaps it is the repository's trouble.
	default:
		if failing != nil {
			r.failing = failing.repo
		}
		if r.signs++; p.route || r.signs >= routeBreaksAfter {
			r.close(err.Error(), min(max(2*r.rest, firstRest), longestRest))
		}
	}
}

func (r *route) close(why string, rest time.Duration) {
	r.gate, r.rest, r.why = closedFor(rest), rest, why
}

// silence notes that a question is out for long.
func (b *breaker) silence(p *pass) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.over {
		return
	}
	if p.ill {
		p.ill, b.ill.probing = false, false // what else is asked of the host does not wait for this
	}
	if b.route.heard.After(p.began) {
		return // others are answered: it is this subject that takes long
	}
	p.silent, p.route = true, false
	b.route.close(fmt.Sprintf("nothing came for %s", silentAfter), longestRest)
}

// isWord says that the endpoint itself has answered a question: with a list, or
// in another way that a Referrers API may, or that one without it does.
func isWord(err error) bool {
	var s *statusError
	return err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrUnsupported) ||
		errors.Is(err, ErrBadAnswer) && errors.As(err, &s) && s.form == formRegistry
}

// failedRoute says that a question had no answer, for a reason that may be the
// route's. A limit and a refusal speak of who asks, a host that can't be
// reached, storage and token servers for themselves.
func failedRoute(err error) bool {
	var sick *unwellError
	var s *statusError
	unreachable := errors.As(err, &sick) && !errors.As(err, &s)
	return errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrElsewhere) && !unreachable && !isWord(err)
}
