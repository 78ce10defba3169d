package upstream

import (
	"context"
	"fmt"
	"net/url"
	"sync"
	"time"
)

const (
	// askWait is how long a question waits for its turn: a "no" that comes
	// late is worse than one that comes in time.
	askWait = 15 * time.Second
	// blobWait is how long a blob waits for its turn behind other blobs, which
	// may be large and many.
	blobWait = 10 * time.Minute
)

// Limit lets at most n requests at once through, each until its body is
// closed. Where n allows it one place is kept for questions, so that a few
// large blobs hold up blobs and nothing else; and questions about referrers,
// which may take a minute each, get a quarter of the places. Who waits too long
// gets ErrUnavailable.
func Limit(next Registry, n int) Registry {
	return limit{next, make(chan struct{}, n), make(chan struct{}, max(n-1, 1)), make(chan struct{}, max(n/4, 1))}
}

type limit struct {
	next      Registry
	all       chan struct{}
	blobs     chan struct{}
	referrers chan struct{}
}

// enter takes a place, and returns how to give it back, once or more often.
func (l limit) enter(ctx context.Context, places chan struct{}, most time.Duration) (leave func(), err error) {
	wait := time.NewTimer(most)
	defer wait.Stop()
	select {
	case places <- struct{}{}:
		return sync.OnceFunc(func() { <-places }), nil
	case <-wait.C:
		return nil, fmt.Errorf("%w: %d requests are under way (max_requests)", ErrUnavailable, cap(places))
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func limited[T any](ctx context.Context, l limit, fn func() (T, error)) (T, error) {
	leave, err := l.enter(ctx, l.all, askWait)
	if err != nil {
		var none T
		return none, err
	}
	defer leave()
	return fn()
}

func limitedContent(ctx context.Context, l limit, fn func() (Content, error)) (Content, error) {
	leave, err := l.enter(ctx, l.all, askWait)
	if err != nil {
		return Content{}, err
	}
	c, err := fn()
	if err != nil {
		leave()
		return Content{}, err
	}
	c.Body = closing{c.Body, leave}
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
	leave, err := l.enter(ctx, l.blobs, blobWait)
	if err != nil {
		return Content{}, err
	}
	c, err := l.blob(ctx, repo, d, from, n)
	if err != nil {
		leave()
		return Content{}, err
	}
	c.Body = closing{c.Body, leave}
	return c, nil
}

func (l limit) blob(ctx context.Context, repo string, d Digest, from, n int64) (Content, error) {
	return limitedContent(ctx, l, func() (Content, error) { return l.next.Blob(ctx, repo, d, from, n) })
}

func (l limit) Referrers(ctx context.Context, repo string, subject Digest) ([]Descriptor, error) {
	// The places may all be taken by questions that hang: what a breaker answers
	// does not wait for them.
	if err := refusal(l.next, ofReferrers); err != nil {
		return nil, err
	}
	leave, err := l.enter(ctx, l.referrers, askWait)
	if err != nil {
		return nil, err
	}
	defer leave()
	return limited(ctx, l, func() ([]Descriptor, error) { return l.next.Referrers(ctx, repo, subject) })
}

func (l limit) Tags(ctx context.Context, repo string, page url.Values) (TagList, error) {
	return limited(ctx, l, func() (TagList, error) { return l.next.Tags(ctx, repo, page) })
}
