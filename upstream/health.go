package upstream

import (
	"errors"
	"fmt"
	"time"
)

// health is whether a host, or one kind of requests to it, works. Failures in a
// row close its gate.
type health struct {
	gate
	failures int             // in a row
	failing  map[string]bool // the repositories of those that were a 500
	lastErr  error
	openFor  time.Duration
}

// record records a failure.
func (h *health) record(err error) {
	if h.failures++; h.failures >= failureThreshold {
		h.trip(err)
	}
}

// recordOf records a failure that may concern a repository only: it counts once
// for each.
func (h *health) recordOf(repo string, err error) {
	if h.failing[repo] {
		return
	}
	h.record(err)
	if h.failing == nil {
		h.failing = make(map[string]bool)
	}
	h.failing[repo] = true
}

// trip closes the gate for a while.
func (h *health) trip(err error) {
	h.lastErr = toOthers(err)
	h.openFor = min(max(2*h.openFor, minOpen), maxOpen)
	h.gate = closedFor(h.openFor)
}

// reset forgets all failures.
func (h *health) reset() { *h = health{} }

// toOthers is what a failure says to clients that have asked for something else:
// what has become of a request, and nothing of what it was for. A registry's
// message may repeat that.
func toOthers(err error) error {
	var s *statusError
	var sick *unhealthyError
	switch {
	case errors.As(err, &s):
		return fmt.Errorf("%w: it answered with status %d", ErrUnavailable, s.status)
	case errors.As(err, &sick):
		return sick.err // of the host alone
	case errors.Is(err, ErrTimeout):
		return ErrTimeout
	}
	return ErrUnavailable
}

// isStatus reports whether an error is a response, whatever it says.
func isStatus(err error) bool {
	var s *statusError
	return errors.As(err, &s)
}
