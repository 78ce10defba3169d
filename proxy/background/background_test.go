package background_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sync/singleflight"

	"github.com/entrepot/entrepot/limits/panics"
	"github.com/entrepot/entrepot/proxy/background"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAllWhoAskShareOneRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := background.New()
		defer w.Stop()
		var group singleflight.Group
		var runs atomic.Int64
		failure := errors.New("it failed")
		run := func(key string, err error) (int64, error) {
			return background.Share(t.Context(), w, &group, key, func(context.Context) (int64, error) {
				n := runs.Add(1)
				time.Sleep(time.Second)
				return n, err
			})
		}
		var callers sync.WaitGroup
		for range 10 {
			callers.Go(func() {
				if n, err := run("one", nil); n != 1 || err != nil {
					t.Errorf("a caller got %d, %v", n, err)
				}
			})
		}
		callers.Wait()
		if n := runs.Load(); n != 1 {
			t.Errorf("10 callers made %d runs", n)
		}
		// What is over is run again, and another key has a run of its own.
		var apart sync.WaitGroup
		for _, key := range []string{"one", "another"} {
			apart.Go(func() {
				if n, err := run(key, failure); n != 0 || !errors.Is(err, failure) {
					t.Errorf("%s: %d, %v", key, n, err)
				}
			})
		}
		apart.Wait()
		if n := runs.Load(); n != 3 {
			t.Errorf("there were %d runs, want 3", n)
		}
	})
}

func TestWorkGoesOnWhenItsCallerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := background.New()
		defer w.Stop()
		var group singleflight.Group
		gone := errors.New("the client has left")
		first, leave := context.WithCancelCause(t.Context())
		run := func(ctx context.Context) (string, error) {
			return background.Share(ctx, w, &group, "key", func(ctx context.Context) (string, error) {
				select {
				case <-time.After(time.Minute):
					return "done", nil
				case <-ctx.Done():
					return "", ctx.Err()
				}
			})
		}
		time.AfterFunc(time.Second, func() { leave(gone) })
		if _, err := run(first); !errors.Is(err, gone) {
			t.Errorf("the one who left got %v", err)
		}
		began := time.Now()
		if got, err := run(t.Context()); got != "done" || err != nil {
			t.Errorf("who came later got %q, %v", got, err)
		}
		if took := time.Since(began); took != 59*time.Second {
			t.Errorf("who came later waited for %s: the work began anew", took)
		}
	})
}

func TestStopWaitsForWhatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := background.New()
		var group singleflight.Group
		var over atomic.Int64
		slow := func(ctx context.Context) {
			<-ctx.Done()
			time.Sleep(time.Second) // it has something to finish
			over.Add(1)
		}
		w.Go(slow)
		ctx, leave := context.WithCancel(t.Context())
		leave() // its caller has left, and it still runs
		_, _ = background.Share(ctx, w, &group, "key", func(ctx context.Context) (struct{}, error) {
			slow(ctx)
			return struct{}{}, nil
		})
		synctest.Wait()
		w.Stop()
		if n := over.Load(); n != 2 {
			t.Errorf("%d of 2 had ended when Stop returned", n)
		}
		w.Stop() // twice is no error
	})
}

func TestNothingBeginsAfterStop(t *testing.T) {
	w := background.New()
	w.Stop()
	if w.Go(func(context.Context) { t.Error("it ran") }) {
		t.Error("Go says that it runs")
	}
	var group singleflight.Group
	_, err := background.Share(t.Context(), w, &group, "key", func(context.Context) (int, error) {
		t.Error("it ran")
		return 0, nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Share returned %v", err)
	}
}

// Whatever begins while Stop is called has ended when Stop returns, or does not
// begin.
func TestStopMissesNothingThatBegins(t *testing.T) {
	for range 200 {
		w := background.New()
		var stopped atomic.Bool
		var group singleflight.Group
		var callers sync.WaitGroup
		late := func(context.Context) {
			if stopped.Load() {
				t.Error("it ran after Stop had returned")
			}
		}
		for range 2 {
			callers.Go(func() { w.Go(late) })
			callers.Go(func() {
				_, _ = background.Share(t.Context(), w, &group, "key", func(ctx context.Context) (int, error) {
					late(ctx)
					return 0, nil
				})
			})
		}
		w.Stop()
		stopped.Store(true)
		callers.Wait()
	}
}

func TestABackoffGrowsUpToItsBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var none *background.Backoff
		var r background.Backoff
		if !none.IsOver() || !r.IsOver() {
			t.Error("a rest that has not begun is not over")
		}
		for _, want := range []time.Duration{2, 4, 8, 10, 10} {
			want *= time.Minute
			if got := r.Extend(2*time.Minute, 10*time.Minute); got != want {
				t.Errorf("the rest is %s, want %s", got, want)
			}
			if until := time.Until(r.Until()); until != want {
				t.Errorf("it is over in %s, want %s", until, want)
			}
			time.Sleep(want - 1)
			if r.IsOver() {
				t.Errorf("the rest of %s is over too early", want)
			}
			time.Sleep(time.Nanosecond)
			if !r.IsOver() {
				t.Errorf("the rest of %s is not over in time", want)
			}
		}
	})
}

func TestAPauseEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		if err := background.Pause(t.Context(), time.Hour); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took < 30*time.Minute || took > 90*time.Minute {
			t.Errorf("a pause of an hour took %s", took)
		}
		why := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(why) })
		began = time.Now()
		if err := background.Pause(ctx, time.Hour); !errors.Is(err, why) || time.Since(began) != time.Second {
			t.Errorf("it returned %v after %s", err, time.Since(began))
		}
	})
}

// TestWhatIsNeededForLongBeginsAgainAfterAPanic: what runs for as long as the
// process lives goes on, but not at once.
func TestWhatIsNeededForLongBeginsAgainAfterAPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told atomic.Int64
		panics.Handle(func(string, any, []byte) { told.Add(1) })
		defer panics.Handle(nil)
		w := background.New()
		var begun []time.Duration
		start := time.Now()
		w.Keep("a loop", func(ctx context.Context) {
			begun = append(begun, time.Since(start))
			if len(begun) < 3 {
				panic("broken")
			}
			<-ctx.Done()
		})
		w.Go(func(context.Context) { panic("broken") }) // nobody waits for it
		time.Sleep(time.Hour)
		w.Stop()
		if len(begun) != 3 || begun[1] < time.Second || told.Load() != 3 {
			t.Errorf("begun after %v, and %d panics were told of", begun, told.Load())
		}
	})
}
