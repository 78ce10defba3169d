// Package background runs work that belongs to the mirror, not to the client
// that happened to ask first: concurrent callers share it, and it continues
// when they leave. It does not know what the work is.
package background

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// Work is the background work of one part of the mirror.
type Work struct {
	ctx  context.Context //nolint:containedctx // it ends the work, which no caller's context may do
	stop context.CancelFunc
	all  sync.WaitGroup
}

// New returns a Work with nothing to do.
func New() *Work {
	w := &Work{}
	w.ctx, w.stop = context.WithCancel(context.Background())
	return w
}

// Context is done when the work is stopped.
func (w *Work) Context() context.Context { return w.ctx }

// Go runs fn in the background. Its context is done when the work is stopped.
func (w *Work) Go(fn func(ctx context.Context)) { w.all.Go(func() { fn(w.ctx) }) }

// Stop stops the work and waits for it.
func (w *Work) Stop() {
	w.stop()
	w.all.Wait()
}

// Share runs fn in the background, one at a time for each key of the group, and
// waits for its result until ctx is done. fn continues when its callers have
// left.
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

// Pause waits for about d, with jitter, or returns the cause if ctx is done
// first.
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

// A Backoff is how long something that fails repeatedly is not tried again. The
// zero Backoff is over.
type Backoff struct {
	wait  time.Duration
	until time.Time
}

// Extend doubles the backoff, between first and most, and returns it.
func (r *Backoff) Extend(first, most time.Duration) time.Duration {
	r.wait = min(max(2*r.wait, first), most)
	r.until = time.Now().Add(r.wait)
	return r.wait
}

// Until is when the backoff is over.
func (r *Backoff) Until() time.Time { return r.until }

// IsOver says whether the backoff is over. A nil Backoff is.
func (r *Backoff) IsOver() bool { return r == nil || !time.Now().Before(r.until) }
