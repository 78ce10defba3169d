// Package background runs work that belongs to the mirror rather than to the
// client that happened to ask first: it is done once for all who ask, and goes
// on when they leave. It knows nothing of what the work is.
package background

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// Work is everything that goes on in the background of one part of the mirror.
type Work struct {
	ctx  context.Context //nolint:containedctx // it is the life of the work, which no caller's context is
	stop context.CancelFunc
	all  sync.WaitGroup
}

// New returns a Work without anything to do.
func New() *Work {
	w := &Work{}
	w.ctx, w.stop = context.WithCancel(context.Background())
	return w
}

// Context ends when the work is stopped.
func (w *Work) Context() context.Context { return w.ctx }

// Go runs fn in the background. Its context ends when the work is stopped.
func (w *Work) Go(fn func(ctx context.Context)) { w.all.Go(func() { fn(w.ctx) }) }

// Stop ends the work and waits for it.
func (w *Work) Stop() {
	w.stop()
	w.all.Wait()
}

// Share runs fn in the background, one at a time for each key of group, and
// waits for it until ctx ends. fn goes on when its callers have left.
func Share[T any](ctx context.Context, w *Work, group *singleflight.Group, key string, fn func(ctx context.Context) (T, error)) (T, error) {
	var zero T
	done := group.DoChan(key, func() (any, error) {
		w.all.Add(1)
		defer w.all.Done()
		return fn(w.ctx)
	})
	select {
	case r := <-done:
		if r.Err != nil {
			return zero, r.Err
		}
		return r.Val.(T), nil
	case <-ctx.Done():
		return zero, context.Cause(ctx)
	}
}

// Pause waits for about d, with jitter, or returns why ctx ended.
func Pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// A Rest is how long something is left alone that has failed again and again.
// The zero Rest has not begun.
type Backoff struct {
	wait  time.Duration
	until time.Time
}

// Longer doubles the rest, from first up to most, and returns it.
func (r *Backoff) Extend(first, most time.Duration) time.Duration {
	r.wait = min(max(2*r.wait, first), most)
	r.until = time.Now().Add(r.wait)
	return r.wait
}

// Until is when the rest is over.
func (r *Backoff) Until() time.Time { return r.until }

// Over says whether the rest is over. A nil Rest is.
func (r *Backoff) IsOver() bool { return r == nil || !time.Now().Before(r.until) }
