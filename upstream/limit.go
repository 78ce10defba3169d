package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// queueTimeout is how long a request waits for a slot. A late failure is
	// worse than an early one.
	queueTimeout = 15 * time.Second
	// blobQueueTimeout is how long a blob waits for a slot behind other blobs,
	// which may be large and many.
	blobQueueTimeout = 10 * time.Minute
)

// Limit sends at most n requests at once; see [Slots.Limit].
func Limit(next Registry, n int) Registry { return NewSlots(n).Limit(next) }

// Slots are shared by the registries that they limit together.
type Slots struct {
	all       chan struct{}
	blobs     chan struct{}
	referrers chan struct{}
	beside    chan struct{}
	waiting   atomic.Int32 // requests that wait for a slot, but for those about referrers
}

// NewSlots returns n slots.
func NewSlots(n int) *Slots {
	return &Slots{
		all: make(chan struct{}, n), blobs: make(chan struct{}, max(n-1, 1)),
		referrers: make(chan struct{}, max(n/4, 1)), beside: make(chan struct{}, max(n/besideShare-1, 0)),
	}
}

// Limit sends as many requests at once as there are slots, each until its body
// is closed. Blobs leave one slot for other requests if there are several, so
// that a few large blobs only delay blobs. A request that waits too long gets
// ErrUnavailable. Requests of [Beside] wait for nothing.
func (s *Slots) Limit(next Registry) Registry { return limit{next, s} }

// LimitEndpoint is like Limit. Requests for referrers, which may take a minute
// each, get a quarter of the slots.
func (s *Slots) LimitEndpoint(next Endpoint) Endpoint { return limitEndpoint{limit{next, s}, next} }

type limit struct {
	next Registry
	*Slots
}

type limitEndpoint struct {
	limit
	next Endpoint
}

// acquire takes a slot. The returned function releases it and may be called
// more than once.
func (l limit) acquire(ctx context.Context, slots chan struct{}, most time.Duration) (release func(), err error) {
	free := sync.OnceFunc(func() { <-slots })
	select {
	case slots <- struct{}{}:
		return free, nil
	default:
	}
	if slots != l.referrers { // a place among all would not help those
		l.waiting.Add(+1)
		defer l.waiting.Add(-1)
	}
	defer queued(ctx)()
	wait := time.NewTimer(most)
	defer wait.Stop()
	select {
	case slots <- struct{}{}:
		return free, nil
	case <-wait.C:
		return nil, fmt.Errorf("%w: %d requests are in progress (max_requests)", ErrUnavailable, cap(slots))
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func limited[T any](ctx context.Context, l limit, fn func() (T, error)) (T, error) {
	release, err := l.acquire(ctx, l.all, queueTimeout)
	if err != nil {
		var none T
		return none, err
	}
	defer release()
	return fn()
}

func limitedContent(ctx context.Context, l limit, fn func() (Content, error)) (Content, error) {
	release, err := l.acquire(ctx, l.all, queueTimeout)
	if err != nil {
		return Content{}, err
	}
	c, err := fn()
	if err != nil {
		release()
		return Content{}, err
	}
	c.Body = bodyWithRelease{c.Body, release}
	return c, nil
}

func (l limit) Resolve(ctx context.Context, repo, ref string) (Descriptor, error) {
	return limited(ctx, l, func() (Descriptor, error) { return l.next.Resolve(ctx, repo, ref) })
}

func (l limit) Manifest(ctx context.Context, repo, ref string) (Content, error) {
	return limitedContent(ctx, l, func() (Content, error) { return l.next.Manifest(ctx, repo, ref) })
}

func (l limit) ResolveBlob(ctx context.Context, repo string, d Digest) (Descriptor, error) {
	return limited(ctx, l, func() (Descriptor, error) { return l.next.ResolveBlob(ctx, repo, d) })
}

func (l limit) Blob(ctx context.Context, repo string, d Digest, from, n int64) (Content, error) {
	release, err := l.acquireBlob(ctx)
	if err != nil {
		return Content{}, err
	}
	c, err := l.next.Blob(ctx, repo, d, from, n)
	if err != nil {
		release()
		return Content{}, err
	}
	c.Body = bodyWithRelease{c.Body, release}
	c.IsAwaited = func() bool { return l.waiting.Load() > 0 }
	return c, nil
}

// acquireBlob takes the places of a request for a blob.
func (l limit) acquireBlob(ctx context.Context) (release func(), err error) {
	if numberOf(ctx) > 0 {
		return l.acquireBeside()
	}
	ofBlob, err := l.acquire(ctx, l.blobs, blobQueueTimeout)
	if err != nil {
		return nil, err
	}
	ofAll, err := l.acquire(ctx, l.all, queueTimeout)
	if err != nil {
		ofBlob()
		return nil, err
	}
	return func() { ofAll(); ofBlob() }, nil
}

func (l limitEndpoint) Referrers(ctx context.Context, repo string, subject Digest) (ReferrersList, error) {
	// All slots may be taken by requests that hang. A request that a breaker
	// rejects does not have to wait for them.
	if err := rejection(l.next, referrersRequests); err != nil && !errors.Is(err, ErrProbed) {
		return ReferrersList{}, err
	}
	release, err := l.acquire(ctx, l.referrers, queueTimeout)
	if err != nil {
		return ReferrersList{}, err
	}
	defer release()
	return limited(ctx, l.limit, func() (ReferrersList, error) { return l.next.Referrers(ctx, repo, subject) })
}

func (l limit) Tags(ctx context.Context, repo string, page url.Values) (TagList, error) {
	return limited(ctx, l, func() (TagList, error) { return l.next.Tags(ctx, repo, page) })
}
