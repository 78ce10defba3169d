package warm

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/background"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream"
)

// limitClass is a class of requests that an upstream limits. Docker Hub counts
// manifests alone (W42): while it says wait for those, blobs go on.
type limitClass struct {
	upstream string
	blobs    bool
}

// holds are the times until which upstreams have said to wait. While one lasts,
// nothing of its class is requested, by whichever fetch.
type holds struct {
	mu    sync.Mutex
	until map[limitClass]time.Time
}

func (h *holds) set(of limitClass, until time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.until == nil {
		h.until = map[limitClass]time.Time{}
	}
	if until.After(h.until[of]) {
		h.until[of] = until
	}
}

func (h *holds) get(of limitClass) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.until[of]
}

const (
	// retryDelay is how long it takes until what could not be asked is asked
	// again; each time twice as long.
	retryDelay = 2 * time.Second
)

// errTooLong means that an upstream says to wait for longer than is wanted.
var errTooLong = errors.New("that is longer than it may be waited for")

// request does one request, when a place is free and the upstream has not said
// to wait. It does it again after a wait that the upstream demands, and as often
// as the options say if the upstream could not be asked.
func (r *run) request(ctx context.Context, of limitClass, do func() error) error {
	var waited time.Duration
	for tries := 1; ; {
		if err := r.await(ctx, of, &waited); err != nil {
			return err
		}
		release, err := r.acquire(ctx)
		if err != nil {
			return err
		}
		if time.Until(r.fetcher.holds.get(of)) > 0 {
			release() // it has said so meanwhile
			continue
		}
		err = do()
		var limited *upstream.RateLimitedError
		isLimited := errors.As(err, &limited)
		if isLimited { // before another takes the place
			r.fetcher.holds.set(of, time.Now().Add(limited.RetryAfter))
		}
		release()
		switch {
		case err == nil || ctx.Err() != nil:
			return err
		case isLimited:
		case tries < r.opts.Attempts && isTransient(err):
			if background.Wait(ctx, retryDelay<<(tries-1)) != nil {
				return err
			}
			tries++
		default:
			return err
		}
	}
}

// isTransient says whether it makes sense to ask again in a moment.
func isTransient(err error) bool {
	if errors.Is(err, pull.ErrOffline) || errors.Is(err, cache.ErrDown) || errors.Is(err, cache.ErrFull) {
		return false
	}
	return pull.IsInconclusive(err) || errors.Is(err, pull.ErrBusy)
}

// await waits until an upstream may be asked, and tells so once. It returns an
// error if that takes longer than the options allow.
func (r *run) await(ctx context.Context, of limitClass, waited *time.Duration) error {
	for {
		until := r.fetcher.holds.get(of)
		left := time.Until(until)
		if left <= 0 {
			return nil
		}
		if *waited+left > r.opts.MaxWait {
			return fmt.Errorf("%w: %w", &upstream.RateLimitedError{RetryAfter: left}, errTooLong)
		}
		if r.isNews(of, until) {
			what := "manifests"
			if of.blobs {
				what = "blobs"
			}
			r.report(Event{Event: EventWaiting, Upstream: of.upstream, Until: until.UTC(), Text: of.upstream + " limits how many " + what + " are requested"})
		}
		if err := background.Wait(ctx, left); err != nil {
			return err
		}
		*waited += left
	}
}

func (r *run) acquire(ctx context.Context) (release func(), err error) {
	select {
	case r.slots <- struct{}{}:
		return func() { <-r.slots }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
