package pull

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/limits/panics"
	"github.com/entrepot/entrepot/proxy/background"
	"github.com/entrepot/entrepot/proxy/flight"
	"github.com/entrepot/entrepot/upstream"
)

// A client's wait and that of a request to an upstream are two things. A client
// is answered in time, so that a runtime goes on to its next host. The request
// goes on as long as a runtime would wait for it, and the next client gets what
// it finds: a parent that fetches before it answers would never be asked long
// enough otherwise.
const (
	// defaultWait is how long a client waits for an answer about something that
	// is not cached. Runtimes that try another host expect one within 20 s.
	defaultWait = 18 * time.Second
	// maxRequest bounds a shared request to an upstream with everything that it
	// involves: retries, the manifest after the HEAD. Each part has bounds of
	// its own; this one is for all of them, where an upstream exhausts each.
	maxRequest = 15 * time.Minute
	// lateTTL is how long the answer of a request is kept that took longer than
	// its clients waited, and maxLate of how many, maxLateBytes how many bytes of
	// them: there is nothing else that the next client could find.
	lateTTL      = time.Minute
	maxLate      = 4096
	maxLateBytes = 32 << 20
)

// errWaited ends a client's wait. It does not end the request.
var errWaited = fmt.Errorf("%w: the request goes on, and finds its answer when it is repeated", upstream.ErrTimeout)

// returnsWithin is how long a client that was told that the request goes on may
// take to repeat it. Docker's daemon waits for up to 25 s.
const returnsWithin = 30 * time.Second

// awaitReturn has a download stay in line for a place at its upstream for a
// client that was told to come back. Release ends that otherwise.
func (p *Puller) awaitReturn(f *flight.Flight) {
	f.Hold()
	if !p.work.Go(func(ctx context.Context) {
		defer f.Release()
		_ = background.Wait(ctx, returnsWithin)
	}) {
		f.Release()
	}
}

// asClient bounds how long a client waits.
func (p *Puller) asClient(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, p.rules.Wait, errWaited)
}

// shared are requests to upstreams that are under way. Callers that need the
// same answer share one.
type shared struct {
	singleflight.Group

	late *memory.Answers[string, lateAnswer]
	// keepsAll means that successful answers that come late are kept, too.
	// Otherwise it is only what the upstream refuses: the rest is on record.
	keepsAll bool
}

// lateAnswer is an answer that came when nobody waited for it any more.
type lateAnswer struct {
	value any
	err   error
}

// sizeOfLate is what an answer takes in memory under a key, as far as it may be large.
func sizeOfLate(key string, a lateAnswer) int {
	switch v := a.value.(type) {
	case upstream.TagList:
		return len(key) + sizeOfTags(v.Tags)
	case Manifest:
		return len(key) + len(v.Bytes)
	}
	return len(key)
}

// keep keeps the answer to a request that began at a time, if it is one, and if
// it comes later than clients wait.
func (s *shared) keep(key string, began time.Time, rules Rules, a lateAnswer) {
	answered := a.err == nil && s.keepsAll || a.err != nil && !IsInconclusive(a.err)
	if !answered || time.Since(began) < rules.Wait {
		return
	}
	ttl := lateTTL
	if errors.Is(a.err, upstream.ErrNotFound) && rules.NegativeTTL > 0 {
		ttl = min(ttl, rules.NegativeTTL) // as what is not late
	}
	s.late.Put(key, a, ttl)
}

func newShared(keepsAll bool) *shared {
	late, err := memory.NewAnswersWithin(maxLate, maxLateBytes, sizeOfLate)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &shared{late: late, keepsAll: keepsAll}
}

// shareRequest runs a request to an upstream in the background, one at a time
// for each key, and waits for it until ctx is done. The request is bounded by
// maxRequest, and continues when its callers have left. If that takes longer
// than clients wait, its answer is kept for the next one.
func shareRequest[T any](ctx context.Context, p *Puller, s *shared, key string, request func(ctx context.Context) (T, error)) (T, error) {
	if a, ok := s.late.Get(key); ok {
		v, _ := a.value.(T)
		return v, a.err
	}
	answer, err := background.Share(ctx, p.work, &s.Group, key, func(ctx context.Context) (T, error) {
		ctx, cancel := context.WithTimeoutCause(ctx, maxRequest, upstream.ErrTimeout)
		defer cancel()
		began := time.Now()
		v, err := request(ctx)
		err = causeOf(ctx, err)
		s.keep(key, began, p.rules, lateAnswer{v, err})
		return v, err
	})
	if errors.Is(err, panics.ErrPanic) {
		err = fmt.Errorf("%w: %w", upstream.ErrUnavailable, err) // what is known still is
	}
	return answer, err
}

// causeOf replaces an error that only says that ctx is done by the reason why
// it is.
func causeOf(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil || !errors.Is(err, ctx.Err()) {
		return err
	}
	if errors.Is(context.Cause(ctx), upstream.ErrTimeout) {
		return upstream.ErrTimeout
	}
	return fmt.Errorf("%w: this mirror is stopping", upstream.ErrUnavailable)
}
