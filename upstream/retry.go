package upstream

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/url"
	"time"
)

const firstWait = 200 * time.Millisecond

// bounds are those of one question with all its tries.
type bounds struct {
	tries  int
	budget time.Duration // of all tries together, until an answer's first header
	again  func(error) bool
}

var (
	usual = bounds{3, 18 * time.Second, again}
	// patient are those of the Referrers API, whose answer may take a minute:
	// whoever was silent for that long is not asked to begin anew.
	patient = bounds{2, 75 * time.Second, func(err error) bool { return again(err) && !errors.Is(err, ErrTimeout) }}
)

// Retry asks up to three times, with jitter, where an upstream gave no answer;
// its Referrers API twice, and once where that was silent. A refused connection
// and an answer that is no registry's are not worth another try; what a
// registry leads to is: it gives a fresh address each time.
func Retry(next Registry) Registry { return retry{next} }

type retry struct{ next Registry }

func again(err error) bool {
	return errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrRefused) && !errors.Is(err, ErrBadAnswer)
}

// attempt calls fn until it has an answer. The time for all tries ends with
// the last of them; an answer's body lives on until release is called.
func attempt[T any](ctx context.Context, b bounds, fn func(context.Context) (T, error)) (answer T, release func(), err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	release = func() { cancel(nil) }
	budget := time.AfterFunc(b.budget, func() { cancel(ErrTimeout) })
	defer budget.Stop()
	for try := 1; ; try++ {
		answer, err = fn(ctx)
		if err == nil || try == b.tries || !b.again(err) || ctx.Err() != nil {
			break
		}
		wait := time.NewTimer(firstWait<<(try-1)/2 + rand.N(firstWait<<(try-1)))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
		}
		if ctx.Err() != nil {
			break
		}
	}
	if err != nil && errors.Is(context.Cause(ctx), ErrTimeout) && !again(err) {
		err = errors.Join(ErrTimeout)
	}
	return answer, release, err
}

func attemptOnly[T any](ctx context.Context, b bounds, fn func(context.Context) (T, error)) (T, error) {
	answer, release, err := attempt(ctx, b, fn)
	release()
	return answer, err
}

func attemptContent(ctx context.Context, fn func(context.Context) (Content, error)) (Content, error) {
	c, release, err := attempt(ctx, usual, fn)
	if err != nil {
		release()
		return Content{}, err
	}
	c.Body = closing{c.Body, release}
	return c, nil
}

// closing is a body with something to do once it is closed.
type closing struct {
	io.ReadCloser
	after func()
}

func (c closing) Close() error {
	defer c.after()
	return c.ReadCloser.Close()
}

func (r retry) Resolve(ctx context.Context, repo, ref string) (Descriptor, error) {
	return attemptOnly(ctx, usual, func(ctx context.Context) (Descriptor, error) { return r.next.Resolve(ctx, repo, ref) })
}

func (r retry) Manifest(ctx context.Context, repo, ref string) (Content, error) {
	return attemptContent(ctx, func(ctx context.Context) (Content, error) { return r.next.Manifest(ctx, repo, ref) })
}

func (r retry) ResolveBlob(ctx context.Context, repo string, d Digest) (Descriptor, error) {
	return attemptOnly(ctx, usual, func(ctx context.Context) (Descriptor, error) { return r.next.ResolveBlob(ctx, repo, d) })
}

func (r retry) Blob(ctx context.Context, repo string, d Digest, from, n int64) (Content, error) {
	return attemptContent(ctx, func(ctx context.Context) (Content, error) { return r.next.Blob(ctx, repo, d, from, n) })
}

func (r retry) Referrers(ctx context.Context, repo string, subject Digest) ([]Descriptor, error) {
	return attemptOnly(ctx, patient, func(ctx context.Context) ([]Descriptor, error) { return r.next.Referrers(ctx, repo, subject) })
}

func (r retry) Tags(ctx context.Context, repo string, page url.Values) (TagList, error) {
	return attemptOnly(ctx, usual, func(ctx context.Context) (TagList, error) { return r.next.Tags(ctx, repo, page) })
}
