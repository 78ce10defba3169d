package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/entrepot/entrepot/limits/panics"
)

const (
	// besideAfter is how long an endpoint is waited for before the next one is
	// asked beside it: a client would go on to its next host soon after.
	besideAfter = 8 * time.Second
	// laggingAfter is how often in a row an endpoint answers later than the
	// next one before it is asked last, for laggingTime.
	laggingAfter = 3
	laggingTime  = time.Minute
)

// Fallback tries several endpoints of one registry in order until one succeeds.
// If none does, the most severe error is returned: a denial outweighs an
// endpoint that is unavailable, and that outweighs "not found", which is
// returned only if every endpoint says so.
//
// If an endpoint has not answered after 8 s, the next one is asked beside it.
// The first that succeeds serves, and the requests to the others end. A mirror
// that could not ask its own upstream about a tag, or for a list of tags, only
// serves if no other endpoint does.
func Fallback(endpoints ...Endpoint) Registry {
	if len(endpoints) == 1 {
		return endpoints[0]
	}
	return &fallback{endpoints: endpoints, lags: make([]lag, len(endpoints))}
}

type fallback struct {
	endpoints []Endpoint

	mu   sync.Mutex
	lags []lag
}

// lag is how an endpoint has been slower than another one.
type lag struct {
	times int // in a row
	last  time.Time
}

func (l lag) isLagging() bool { return l.times >= laggingAfter && time.Since(l.last) < laggingTime }

// order returns the endpoints in the order in which they are asked.
func (f *fallback) order() []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	var first, last []int
	for i, l := range f.lags {
		if l.isLagging() {
			last = append(last, i)
		} else {
			first = append(first, i)
		}
	}
	return append(first, last...)
}

// note notes which endpoint has answered, and which were slower.
func (f *fallback) note(answered int, slower map[int]context.CancelFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lags[answered] = lag{}
	for i := range slower {
		f.lags[i] = lag{f.lags[i].times + 1, time.Now()}
	}
}

// reply is what an endpoint answers.
type reply[T any] struct {
	endpoint int
	answer   T
	err      error
}

// firstAnswer asks the endpoints. What is returned stays valid until release is
// called; discard discards the answer of another endpoint, and lastResort says
// whether an answer only counts if there is no other one.
func firstAnswer[T any](ctx context.Context, f *fallback, fn func(context.Context, Registry) (T, error), discard func(T), lastResort func(T) bool) (answer T, release func(), err error) {
	replies := make(chan reply[T], len(f.endpoints))
	asked := make(map[int]context.CancelFunc) // endpoints that have not answered yet
	left := f.order()
	late := time.NewTimer(besideAfter)
	defer late.Stop()
	ask := func() {
		i := left[0]
		left = left[1:]
		ctx, cancel := context.WithCancel(ctx)
		asked[i] = cancel
		go func() {
			answer, err := askSafely(func() (T, error) { return fn(ctx, f.endpoints[i]) })
			replies <- reply[T]{i, answer, err}
		}()
		late.Reset(besideAfter)
	}
	var kept *reply[T] // that only counts if there is no other one
	var releaseKept func()
	defer func() {
		for _, cancel := range asked {
			cancel()
		}
		if kept != nil {
			discard(kept.answer)
			releaseKept()
		}
		go discardReplies(replies, len(asked), discard)
	}()
	lastAnswer := func() (T, func(), error) {
		answer := kept.answer
		kept = nil
		return answer, releaseKept, nil
	}
	var worst error
	for ask(); ; {
		select {
		case <-late.C:
			if len(left) > 0 {
				ask()
			} else if kept != nil {
				return lastAnswer()
			}
		case r := <-replies:
			cancel := asked[r.endpoint]
			delete(asked, r.endpoint)
			switch {
			case r.err == nil && kept == nil && lastResort(r.answer):
				kept, releaseKept = &r, cancel
				late.Reset(besideAfter)
			case r.err == nil && lastResort(r.answer):
				discard(r.answer)
				cancel()
			case r.err == nil:
				f.note(r.endpoint, asked)
				return r.answer, cancel, nil
			default:
				cancel()
			}
			if severity(r.err) >= severity(worst) {
				worst = r.err
			}
			switch {
			case r.err != nil && ctx.Err() != nil:
				return answer, func() {}, r.err
			case len(left) > 0:
				ask()
			case len(asked) == 0 && kept != nil:
				return lastAnswer()
			case len(asked) == 0:
				return answer, func() {}, worst
			}
		case <-ctx.Done():
			return answer, func() {}, context.Cause(ctx)
		}
	}
}

// discardReplies discards n replies that nobody waits for.
func discardReplies[T any](replies <-chan reply[T], n int, discard func(T)) {
	for range n {
		if r := <-replies; r.err == nil {
			discard(r.answer)
		}
	}
}

func firstValue[T any](ctx context.Context, f *fallback, fn func(context.Context, Registry) (T, error), lastResort func(T) bool) (T, error) {
	answer, release, err := firstAnswer(ctx, f, fn, func(T) {}, lastResort)
	release()
	return answer, err
}

// never says that an answer counts, whatever the others are.
func never[T any](T) bool { return false }

func firstContent(ctx context.Context, f *fallback, fn func(context.Context, Registry) (Content, error), lastResort func(Content) bool) (Content, error) {
	c, release, err := firstAnswer(ctx, f, fn, func(c Content) { c.Body.Close() }, lastResort)
	if err != nil {
		release()
		return Content{}, err
	}
	c.Body = bodyWithRelease{c.Body, release}
	return c, nil
}

// The severities of errors of endpoints, in order. What one of them can't tell
// outweighs that another has nothing: it may have it.
const (
	severityNone = iota
	severityAbsent
	severityUnsupported // it does not answer such requests
	severityUnknown
	severityDenied
)

// severity orders the errors of endpoints.
func severity(err error) int {
	var limited *RateLimitedError
	switch {
	case err == nil:
		return severityNone
	case errors.Is(err, ErrDenied):
		return severityDenied
	case errors.Is(err, ErrUnavailable), errors.As(err, &limited):
		return severityUnknown
	case errors.Is(err, ErrNotFound):
		return severityAbsent
	}
	return severityUnsupported
}

func (f *fallback) Resolve(ctx context.Context, repo, ref string) (Descriptor, error) {
	return firstValue(ctx, f, func(ctx context.Context, r Registry) (Descriptor, error) { return r.Resolve(ctx, repo, ref) }, never[Descriptor])
}

func (f *fallback) Manifest(ctx context.Context, repo, ref string) (Content, error) {
	return firstContent(ctx, f, func(ctx context.Context, r Registry) (Content, error) { return r.Manifest(ctx, repo, ref) }, func(c Content) bool { return c.Stale && isTag(ref) })
}

func (f *fallback) ResolveBlob(ctx context.Context, repo string, d Digest) (Descriptor, error) {
	return firstValue(ctx, f, func(ctx context.Context, r Registry) (Descriptor, error) { return r.ResolveBlob(ctx, repo, d) }, never[Descriptor])
}

func (f *fallback) Blob(ctx context.Context, repo string, d Digest, from, n int64) (Content, error) {
	return firstContent(ctx, f, func(ctx context.Context, r Registry) (Content, error) { return r.Blob(ctx, repo, d, from, n) }, never[Content])
}

func (f *fallback) Tags(ctx context.Context, repo string, page url.Values) (TagList, error) {
	return firstValue(ctx, f, func(ctx context.Context, r Registry) (TagList, error) { return r.Tags(ctx, repo, page) }, func(l TagList) bool { return l.Stale })
}

// askSafely makes a panic an error that says nothing of the upstream.
func askSafely[T any](ask func() (T, error)) (answer T, err error) {
	defer func() {
		if errors.Is(err, panics.ErrPanic) {
			err = fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}()
	defer panics.Catch("request to an upstream", &err)
	return ask()
}
