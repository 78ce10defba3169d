package upstream

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/url"
	"time"
)

const firstBackoff = 200 * time.Millisecond

// retryLimits limit one request with all its attempts.
type retryLimits struct {
	attempts int
	budget   time.Duration // of all attempts together, until a response's header; 0 means that each attempt has its own limit only
	// patient means that there is an attempt with WithPatience after a slow one.
	patient bool
}

var (
	defaultLimits = retryLimits{attempts: 3, patient: true}
	// referrersLimits are those of the Referrers API: what took a minute is not
	// waited for again.
	referrersLimits = retryLimits{attempts: 2, budget: 75 * time.Second}
)

// Retry makes up to three attempts, with jitter, if an upstream does not
// answer. What is slow is asked for again only when the first request is over,
// and then waited for twice as long, once. For its Referrers API there are two
// attempts, and only one if it is slow. Refused connections and responses that are not a registry's are not retried.
// Failures of hosts that the registry refers to are: it names a fresh address
// each time.
func Retry(next Endpoint) Endpoint { return retry{next} }

type retry struct{ next Endpoint }

func retryable(err error) bool {
	return errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrRefused) && !errors.Is(err, ErrInvalidResponse) && !errors.Is(err, ErrStale) && !errors.Is(err, ErrCrowded)
}

// attempt calls fn until it succeeds or may not be retried. The time limit
// applies to all attempts, but not to a response's body, which stays open until
// release is called.
func attempt[T any](ctx context.Context, b retryLimits, fn func(context.Context) (T, error)) (answer T, release func(), err error) {
	caller := ctx
	ctx, cancel := context.WithCancelCause(caller)
	release = func() { cancel(nil) }
	if b.budget > 0 {
		budget := time.AfterFunc(b.budget, func() { cancel(ErrTimeout) })
		defer budget.Stop()
	}
	asking := ctx
	var before error // of the attempt before
	for n := 1; ; n++ {
		answer, err = fn(asking)
		if caller.Err() != nil && err != nil && before != nil {
			err = before // that one was not ended by the caller
		}
		if err == nil || n == b.attempts || !retryable(err) || ctx.Err() != nil {
			break
		}
		if IsSlow(err) {
			if !b.patient || IsPatient(asking) {
				break
			}
			asking = WithPatience(ctx)
		}
		before = err
		wait := time.NewTimer(firstBackoff<<(n-1)/2 + rand.N(firstBackoff<<(n-1)))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
		}
		if ctx.Err() != nil {
			break
		}
	}
	if err != nil && errors.Is(context.Cause(ctx), ErrTimeout) && !retryable(err) {
		err = errors.Join(ErrTimeout)
	}
	return answer, release, err
}

func attemptValue[T any](ctx context.Context, b retryLimits, fn func(context.Context) (T, error)) (T, error) {
	answer, release, err := attempt(ctx, b, fn)
	release()
	return answer, err
}

func attemptContent(ctx context.Context, fn func(context.Context) (Content, error)) (Content, error) {
	c, release, err := attempt(ctx, defaultLimits, fn)
	if err != nil {
		release()
		return Content{}, err
	}
	c.Body = bodyWithRelease{c.Body, release}
	return c, nil
}

// bodyWithRelease is a body that calls a function when it is closed.
type bodyWithRelease struct {
	io.ReadCloser
	release func()
}

func (c bodyWithRelease) Close() error {
	defer c.release()
	return c.ReadCloser.Close()
}

func (r retry) Resolve(ctx context.Context, repo, ref string) (Descriptor, error) {
	return attemptValue(ctx, defaultLimits, func(ctx context.Context) (Descriptor, error) { return r.next.Resolve(ctx, repo, ref) })
}

func (r retry) Manifest(ctx context.Context, repo, ref string) (Content, error) {
	return attemptContent(ctx, func(ctx context.Context) (Content, error) { return r.next.Manifest(ctx, repo, ref) })
}

func (r retry) ResolveBlob(ctx context.Context, repo string, d Digest) (Descriptor, error) {
	return attemptValue(ctx, defaultLimits, func(ctx context.Context) (Descriptor, error) { return r.next.ResolveBlob(ctx, repo, d) })
}

func (r retry) Blob(ctx context.Context, repo string, d Digest, from, n int64) (Content, error) {
	return attemptContent(ctx, func(ctx context.Context) (Content, error) { return r.next.Blob(ctx, repo, d, from, n) })
}

func (r retry) Referrers(ctx context.Context, repo string, subject Digest) (ReferrersList, error) {
	return attemptValue(ctx, referrersLimits, func(ctx context.Context) (ReferrersList, error) { return r.next.Referrers(ctx, repo, subject) })
}

func (r retry) Tags(ctx context.Context, repo string, page url.Values) (TagList, error) {
	return attemptValue(ctx, defaultLimits, func(ctx context.Context) (TagList, error) { return r.next.Tags(ctx, repo, page) })
}
