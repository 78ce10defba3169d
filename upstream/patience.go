package upstream

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// errNoHeader is the ErrTimeout of a request that was sent, and to which no
// header of a response came. The host may still have been at work on it.
var errNoHeader = fmt.Errorf("%w: no header of a response", ErrTimeout)

// IsSlow reports whether an upstream took a request and then sent nothing for
// too long. That is no failure of the host: some fetch what is asked for, or
// scan it, before they answer.
func IsSlow(err error) bool {
	var sick *unhealthyError
	return errors.Is(err, ErrTimeout) && !errors.As(err, &sick)
}

// maxPatience is how many times longer than usual WithPatience waits.
const maxPatience = 2

type patienceKey struct{}

// WithPatience returns a context in which requests wait twice as long as usual
// for the header and for the body of a response. It is for asking again where
// the usual time was not enough.
func WithPatience(ctx context.Context) context.Context {
	return context.WithValue(ctx, patienceKey{}, true)
}

// IsPatient reports whether a context is of WithPatience.
func IsPatient(ctx context.Context) bool {
	patient, _ := ctx.Value(patienceKey{}).(bool)
	return patient
}

// waitOf returns how long a request waits for what is usually waited for as
// long as usual.
func waitOf(ctx context.Context, usual time.Duration) time.Duration {
	if IsPatient(ctx) {
		return maxPatience * usual
	}
	return usual
}
