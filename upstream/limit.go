package upstream

import (
	"context"
	"fmt"
	"net/url"
	"sync"
	"time"
)

// limitWait is how long a request waits for its turn.
const limitWait = 15 * time.Second

// Limit lets at most n requests at once through, each until its body is
// closed. Who waits too long gets ErrUnavailable: a "no" that comes late is
// worse than one that comes in time.
func Limit(next Registry, n int) Registry {
	return limit{next, make(chan struct{}, n)}
}

type limit struct {
	next   Registry
	places chan struct{}
}

func (l limit) enter(ctx context.Context) (leave func(), err error) {
	wait := time.NewTimer(limitWait)
	defer wait.Stop()
	select {
	case l.places <- struct{}{}:
		return sync.OnceFunc(func() { <-l.places }), nil
	case <-wait.C:
		return nil, fmt.Errorf("%w: %d requests are under way (max_requests)", ErrUnavailable, cap(l.places))
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func limited[T any](ctx context.Context, l limit, fn func() (T, error)) (T, error) {
	leave, err := l.enter(ctx)
	if err != nil {
		var none T
		return none, err
	}
	defer leave()
	return fn()
}

func limitedContent(ctx context.Context, l limit, fn func() (Content, error)) (Content, error) {
	leave, err := l.enter(ctx)
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
	return limitedContent(ctx, l, func() (Content, error) { return l.next.Blob(ctx, repo, d, from, n) })
}

func (l limit) Referrers(ctx context.Context, repo string, subject Digest) ([]Descriptor, error) {
	return limited(ctx, l, func() ([]Descriptor, error) { return l.next.Referrers(ctx, repo, subject) })
}

func (l limit) Tags(ctx context.Context, repo string, page url.Values) (TagList, error) {
	return limited(ctx, l, func() (TagList, error) { return l.next.Tags(ctx, repo, page) })
}
