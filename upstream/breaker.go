package upstream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"sync"
	"time"
)

const (
	// breaksAfter is how many failures in a row open a breaker.
	breaksAfter = 5
	// firstRest and longestRest bound how long it stays open.
	firstRest   = time.Second
	longestRest = 30 * time.Second
)

// Breaker answers for an upstream that keeps failing, or that has said when to
// come back: no request goes out before. When the time is up, one request
// tries; the others still get the breaker's answer.
func Breaker(next Registry) Registry { return &breaker{next: next} }

type breaker struct {
	next Registry

	mu       sync.Mutex
	failures int // in a row
	last     error
	until    time.Time // no request before
	limited  bool      // by the upstream's own word
	rest     time.Duration
	probing  bool
}

// enter says whether a request may go out; probe, that it is the one that tries.
func (b *breaker) enter() (probe bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.until.IsZero() {
		return false, nil
	}
	left := time.Until(b.until)
	if left <= 0 && !b.probing {
		b.probing = true
		return true, nil
	}
	if b.limited {
		return false, &RateLimitedError{RetryAfter: max(left, time.Second)}
	}
	return false, fmt.Errorf("%w: its last %d answers failed: %w", ErrUnavailable, b.failures, b.last)
}

// leave notes how a request ended.
func (b *breaker) leave(ctx context.Context, probe bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if probe {
		b.probing = false
	}
	var limited *RateLimitedError
	switch {
	case errors.As(err, &limited):
		b.limited, b.until = true, time.Now().Add(limited.RetryAfter)
	case errors.Is(err, ErrUnavailable):
		b.failures++
		b.last = err
		if b.failures >= breaksAfter {
			b.rest = min(max(2*b.rest, firstRest), longestRest)
			b.limited, b.until = false, time.Now().Add(b.rest/2+rand.N(b.rest))
		}
	case err != nil && ctx.Err() != nil:
		// The caller left: that says nothing about the upstream.
	default:
		b.failures, b.rest, b.limited, b.until, b.last = 0, 0, false, time.Time{}, nil
	}
}

func guarded[T any](ctx context.Context, b *breaker, fn func() (T, error)) (T, error) {
	probe, err := b.enter()
	if err != nil {
		var none T
		return none, err
	}
	answer, err := fn()
	b.leave(ctx, probe, err)
	return answer, err
}

func (b *breaker) Resolve(ctx context.Context, repo, ref string) (Descriptor, error) {
	return guarded(ctx, b, func() (Descriptor, error) { return b.next.Resolve(ctx, repo, ref) })
}

func (b *breaker) Manifest(ctx context.Context, repo, ref string) (Content, error) {
	return guarded(ctx, b, func() (Content, error) { return b.next.Manifest(ctx, repo, ref) })
}

func (b *breaker) ResolveBlob(ctx context.Context, repo string, d Digest) (Descriptor, error) {
	return guarded(ctx, b, func() (Descriptor, error) { return b.next.ResolveBlob(ctx, repo, d) })
}

func (b *breaker) Blob(ctx context.Context, repo string, d Digest, from, n int64) (Content, error) {
	return guarded(ctx, b, func() (Content, error) { return b.next.Blob(ctx, repo, d, from, n) })
}

func (b *breaker) Referrers(ctx context.Context, repo string, subject Digest) ([]Descriptor, error) {
	return guarded(ctx, b, func() ([]Descriptor, error) { return b.next.Referrers(ctx, repo, subject) })
}

func (b *breaker) Tags(ctx context.Context, repo string, page url.Values) (TagList, error) {
	return guarded(ctx, b, func() (TagList, error) { return b.next.Tags(ctx, repo, page) })
}
