package upstream

import (
	"errors"
	"fmt"
	"time"
)

const (
	// silentAfter is how long a request to the Referrers API may take before
	// other requests do not wait for the same.
	silentAfter = 5 * time.Second
	// referrersFailureThreshold is how many requests in a row have to fail. A
	// single page in place of an answer is often followed by an answer.
	referrersFailureThreshold = 2
)

// referrersGate is the gate of an endpoint's Referrers API, which may fail or
// hang while everything else works.
//
//   - Open: every request passes. Two failures in a row close it for a second. A
//     request that takes long closes it for half a minute while it still runs.
//   - Closed: no request passes; the error says that nothing is known.
//   - Half open, when that time is over: one request is the probe, and no other
//     passes meanwhile. If it fails, the gate is closed for twice as long as
//     before, at most half a minute. If it says nothing about the API, the next
//     request is the probe.
//
// Any answer opens the gate, no matter when: a list that took long proves that
// the API works.
type referrersGate struct {
	gate
	closedFor   time.Duration
	reason      string    // why it is closed
	answeredAt  time.Time // when the API answered last
	failures    int       // in a row since then
	failingRepo string    // the last repository that got a 500
}

// record records the result of a request that was not ended by its caller.
func (r *referrersGate) record(p *admission, err error) {
	var failing *internalError
	switch {
	case isRegistryAnswer(err):
		*r = referrersGate{answeredAt: time.Now()}
	case p.silent, !isReferrersFailure(err), !p.probesReferrers && !r.until.IsZero():
		// It has been recorded already, or says nothing about the API.
	case !p.probesReferrers && errors.As(err, &failing) && r.failingRepo == failing.repo:
		// It may concern the repository only.
	default:
		if failing != nil {
			r.failingRepo = failing.repo
		}
		if r.failures++; p.probesReferrers || r.failures >= referrersFailureThreshold {
			r.close(err.Error(), min(max(2*r.closedFor, minOpen), maxOpen))
		}
	}
}

func (r *referrersGate) close(why string, rest time.Duration) {
	r.gate, r.closedFor, r.reason = closedFor(rest), rest, why
}

// markSilent records that a request takes long.
func (b *breaker) markSilent(p *admission) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.ended {
		return
	}
	if p.probesHost {
		p.probesHost, b.host.probing = false, false // other requests to the host do not wait for this one
	}
	if b.referrers.answeredAt.After(p.started) {
		return // other requests are answered, so it is this subject that takes long
	}
	p.silent, p.probesReferrers = true, false
	b.referrers.close(fmt.Sprintf("no response for %s", silentAfter), maxOpen)
}

// pageArrived records that a page of a list has come: the API works, whatever
// becomes of the rest of this list.
func (b *breaker) pageArrived(p *admission) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.ended {
		return
	}
	b.endProbes(referrersRequests, p)
	p.probesHost, p.probesReferrers = false, false
	p.silent, p.paged = false, true
	b.referrers = referrersGate{answeredAt: time.Now()}
	b.host.reset()
}

// isRegistryAnswer reports whether the endpoint itself answered a request: with
// a list, with another response that a Referrers API may give, or as an
// endpoint without it would.
func isRegistryAnswer(err error) bool {
	var s *statusError
	var pages *listError
	return err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrStale) || errors.As(err, &pages) || errors.Is(err, ErrUnsupported) ||
		errors.Is(err, ErrInvalidResponse) && errors.As(err, &s) && s.form == formRegistry
}

// isReferrersFailure reports whether a request got no answer for a reason that
// may be the API's. Rate limits and denials concern the client, and unreachable
// hosts, storage and token servers have their own failures.
func isReferrersFailure(err error) bool {
	var sick *unhealthyError
	unreachable := errors.As(err, &sick) && !isStatus(err)
	return errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrThirdParty) && !unreachable && !isRegistryAnswer(err)
}
