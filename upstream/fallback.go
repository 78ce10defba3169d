package upstream

import (
	"context"
	"errors"
	"net/url"
)

// Fallback asks several endpoints of one registry in order until one answers.
// What one does not have the next may: "not found" is only the answer where no
// endpoint behind was unable to tell.
func Fallback(endpoints ...Registry) Registry {
	if len(endpoints) == 1 {
		return endpoints[0]
	}
	return fallback(endpoints)
}

type fallback []Registry

func inOrder[T any](ctx context.Context, all fallback, fn func(Registry) (T, error)) (answer T, err error) {
	var unknown error
	for _, r := range all {
		answer, err = fn(r)
		if err == nil || ctx.Err() != nil {
			return answer, err
		}
		var limited *RateLimitedError
		if errors.Is(err, ErrUnavailable) || errors.As(err, &limited) {
			unknown = err
			continue
		}
		// A definite answer: it outweighs what an endpoint before could not tell.
		unknown = nil
	}
	if unknown != nil {
		return answer, unknown
	}
	return answer, err
}

func (f fallback) Resolve(ctx context.Context, repo, ref string) (Descriptor, error) {
	return inOrder(ctx, f, func(r Registry) (Descriptor, error) { return r.Resolve(ctx, repo, ref) })
}

func (f fallback) Manifest(ctx context.Context, repo, ref string) (Content, error) {
	return inOrder(ctx, f, func(r Registry) (Content, error) { return r.Manifest(ctx, repo, ref) })
}

func (f fallback) ResolveBlob(ctx context.Context, repo string, d Digest) (Descriptor, error) {
	return inOrder(ctx, f, func(r Registry) (Descriptor, error) { return r.ResolveBlob(ctx, repo, d) })
}

func (f fallback) Blob(ctx context.Context, repo string, d Digest, from, n int64) (Content, error) {
	return inOrder(ctx, f, func(r Registry) (Content, error) { return r.Blob(ctx, repo, d, from, n) })
}

func (f fallback) Referrers(ctx context.Context, repo string, subject Digest) ([]Descriptor, error) {
	return inOrder(ctx, f, func(r Registry) ([]Descriptor, error) { return r.Referrers(ctx, repo, subject) })
}

func (f fallback) Tags(ctx context.Context, repo string, page url.Values) (TagList, error) {
	return inOrder(ctx, f, func(r Registry) (TagList, error) { return r.Tags(ctx, repo, page) })
}
