package pull

import (
	"context"
	"time"

	"github.com/entrepot/entrepot/upstream"
)

// An upstream may be a mirror itself, with a cache of its own. What it keeps is
// as old as its Age says, so that an answer about referrers is never fresh for
// the sum of two times. And how old its answer may be is part of the request:
// then a client's wish reaches the registry.

// withMaxAge returns a context in which an upstream is asked for what its
// registry said within referrers_ttl, or since a client wishes.
func (p *Puller) withMaxAge(ctx context.Context, renew renewal) context.Context {
	most := p.rules.ReferrersTTL
	if !renew.oldest.IsZero() {
		most = min(most, time.Since(renew.oldest))
	}
	return upstream.WithMaxAge(ctx, most)
}

// saidAt is when an upstream's registry said what it has just answered to the
// requests of a context.
func saidAt(ctx context.Context) time.Time {
	if said := upstream.SaidAt(ctx); !said.IsZero() {
		return said
	}
	return time.Now()
}

// earliest is the earlier of two times.
func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// DatedError is an upstream's "not found", with the time at which it said so.
type DatedError struct {
	Err error
	At  time.Time
}

func (e *DatedError) Error() string { return e.Err.Error() }
func (e *DatedError) Unwrap() error { return e.Err }
