package upstream

import (
	"context"
	"errors"
	"net/url"
)

// Fallback tries several endpoints of one registry in order until one succeeds.
// If none does, the most severe error is returned: a denial outweighs an
// endpoint that is unavailable, and that outweighs "not found", which is
// returned only if every endpoint says so.
func Fallback(endpoints ...Registry) Registry {
	if len(endpoints) == 1 {
		return endpoints[0]
	}
	return fallback(endpoints)
}

type fallback []Registry

func firstAnswer[T any](ctx context.Context, all fallback, fn func(Registry) (T, error)) (answer T, err error) {
	var worst error
	for _, r := range all {
		answer, err = fn(r)
		if err == nil || ctx.Err() != nil {
			return answer, err
		}
		if severity(err) >= severity(worst) {
			worst = err
		}
	}
	return answer, worst
}

// rejection is nil if at least one endpoint would be asked.
func (f fallback) rejection(q requestClass) (worst error) {
	for _, r := range f {
		err := rejection(r, q)
		if err == nil {
			return nil
		}
		if severity(err) >= severity(worst) {
			worst = err
		}
	}
	return worst
}

// severity orders the errors of endpoints.
func severity(err error) int {
	var limited *RateLimitedError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, ErrDenied):
		return 3
	case errors.Is(err, ErrUnavailable), errors.As(err, &limited):
		return 2
	}
	return 1
}

func (f fallback) Resolve(ctx context.Context, repo, ref string) (Descriptor, error) {
	return firstAnswer(ctx, f, func(r Registry) (Descriptor, error) { return r.Resolve(ctx, repo, ref) })
}

func (f fallback) Manifest(ctx context.Context, repo, ref string) (Content, error) {
	return firstAnswer(ctx, f, func(r Registry) (Content, error) { return r.Manifest(ctx, repo, ref) })
}

func (f fallback) ResolveBlob(ctx context.Context, repo string, d Digest) (Descriptor, error) {
	return firstAnswer(ctx, f, func(r Registry) (Descriptor, error) { return r.ResolveBlob(ctx, repo, d) })
}

func (f fallback) Blob(ctx context.Context, repo string, d Digest, from, n int64) (Content, error) {
	return firstAnswer(ctx, f, func(r Registry) (Content, error) { return r.Blob(ctx, repo, d, from, n) })
}

func (f fallback) Referrers(ctx context.Context, repo string, subject Digest) ([]Descriptor, error) {
	return firstAnswer(ctx, f, func(r Registry) ([]Descriptor, error) { return r.Referrers(ctx, repo, subject) })
}

func (f fallback) Tags(ctx context.Context, repo string, page url.Values) (TagList, error) {
	return firstAnswer(ctx, f, func(r Registry) (TagList, error) { return r.Tags(ctx, repo, page) })
}
