package upstream

import "errors"

// IsAway reports whether an upstream could not be asked at all: it can't be
// reached, what stands before it says so (502, 503, 504), its last requests have
// failed in one of these ways, or it is a mirror that could not ask its own
// upstream. A limit, a refusal, slowness and a page are none of these.
func IsAway(err error) bool {
	var sick *unhealthyError
	var resting *restingError
	return errors.Is(err, ErrRefused) || errors.Is(err, ErrStale) || errors.As(err, &sick) || errors.As(err, &resting)
}

// restingError is the error of a request that the breaker does not send.
type restingError struct{ err error }

func (e *restingError) Error() string { return e.err.Error() }
func (e *restingError) Unwrap() error { return e.err }
