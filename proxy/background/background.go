// Package background runs work that belongs to the mirror, not to the client
// that happened to ask first: concurrent callers share it, and it continues
// when they leave. It does not know what the work is.
//
// What it promises, each with the test that guards it:
//
//   - Work with one key runs once at a time, and all who ask get its result
//     (TestAllWhoAskShareOneRun).
//   - Work goes on when its caller leaves (TestWorkGoesOnWhenItsCallerLeaves).
//   - When Stop returns, nothing runs, and nothing begins any more
//     (TestStopWaitsForWhatRuns, TestNothingBeginsAfterStop,
//     TestStopMissesNothingThatBegins).
//   - What fails repeatedly is tried again less and less often, up to a bound
//     (TestABackoffGrowsUpToItsBound).
//
// The lock of a Work is held to begin work and to stop it, never while work
// runs.
package background

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/entrepot/entrepot/limits/panics"
)

// Work is what runs in the background of a mirror. All methods are safe for
// concurrent use.
type Work struct {
	ctx    context.Context //nolint:containedctx // it is the life of the work, which no caller's context is
	cancel context.CancelFunc

	mu  sync.Mutex // held while work is added, so that Stop waits for all of it
	all sync.WaitGroup
}

// New returns a Work that runs nothing yet.
func New() *Work {
	w := &Work{}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	return w
}

// Context returns the context of all work. It ends when Stop is called.
func (w *Work) Context() context.Context { return w.ctx }

// begin adds one piece of work, unless the work is stopped. Its end is all.Done.
func (w *Work) begin() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ctx.Err() != nil {
		return false
	}
	w.all.Add(1)
	return true
}

// Go runs fn in a goroutine. Its context ends when Stop is called. After Stop
// it does not run fn, and returns false.
func (w *Work) Go(fn func(ctx context.Context)) bool {
	if !w.begin() {
		return false
	}
	go func() {
		defer w.all.Done()
		defer panics.Report("background work")
		fn(w.ctx)
	}()
	return true
}

// againAfter is how long what has panicked is not begun again.
const againAfter = time.Minute

// Keep runs fn in a goroutine, as Go does, and again after a while if it
// panics: it is needed for as long as the process lives.
func (w *Work) Keep(task string, fn func(ctx context.Context)) bool {
	return w.Go(func(ctx context.Context) {
		for once(ctx, task, fn) != nil {
			if Wait(ctx, againAfter) != nil {
				return
			}
		}
	})
}

func once(ctx context.Context, task string, fn func(ctx context.Context)) (err error) {
	defer panics.Catch(task, &err)
	fn(ctx)
	return nil
}

// Stop ends the context of all work, and waits until all of it has returned.
func (w *Work) Stop() {
	w.mu.Lock()
	w.cancel()
	w.mu.Unlock()
	w.all.Wait()
}

// Share runs fn in the background, once at a time for each key of group, and
// waits for its result until ctx ends. fn goes on when its callers have left;
// its context ends when Stop is called. After Stop it does not run fn, and
// returns context.Canceled.
func Share[T any](ctx context.Context, w *Work, group *singleflight.Group, key string, fn func(ctx context.Context) (T, error)) (T, error) {
	var zero T
	done := group.DoChan(key, func() (_ any, err error) {
		if !w.begin() {
			return nil, context.Cause(w.ctx)
		}
		defer w.all.Done()
		defer panics.Catch("shared work", &err)
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

// Wait waits for d. It returns the cause of ctx if that ends first.
func Wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Pause waits for a time between half of d and one and a half of d, so that
// what began together does not go on together. It returns the cause of ctx if
// that ends first.
func Pause(ctx context.Context, d time.Duration) error { return Wait(ctx, d/2+rand.N(d)) }

// A Backoff is how long something that fails repeatedly is not tried again. The
// zero Backoff is over. It is used by one goroutine at a time.
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

// Until returns when the backoff is over.
func (r *Backoff) Until() time.Time { return r.until }

// IsOver reports whether the backoff is over. A nil Backoff is.
func (r *Backoff) IsOver() bool { return r == nil || !time.Now().Before(r.until) }
