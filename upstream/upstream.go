// Package upstream reads from remote registries: the contract [Registry], the
// [Remote] that speaks HTTP to one, and decorators that each add one policy.
// Package upstreamtest holds a scriptable registry for tests.
package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Digest names content by algorithm and hash, as in sha256:….
type Digest = digest.Digest

// Descriptor names content by media type, digest and size in bytes.
type Descriptor = ocispec.Descriptor

// Errors have a meaning, and callers branch on it with errors.Is and errors.As.
// Of the errors below, exactly one of ErrUnavailable, ErrDenied, ErrNotFound,
// ErrUnsupported and *RateLimitedError is found in an error of a Registry,
// unless the caller's context ended it.
var (
	// ErrUnavailable: no answer that can be believed. Nothing is known.
	ErrUnavailable = errors.New("upstream is unavailable")
	// ErrTimeout is the ErrUnavailable of an upstream that was silent too long.
	ErrTimeout = fmt.Errorf("%w: no answer in time", ErrUnavailable)
	// ErrRefused is the ErrUnavailable of an upstream that can't be reached at
	// all: connection refused, no route, no such host. It is not retried.
	ErrRefused = fmt.Errorf("%w: cannot connect", ErrUnavailable)
	// ErrBadAnswer is the ErrUnavailable of an answer that is no registry's word:
	// a page, a line of an ingress, an odd status, a wrong length. Not retried.
	ErrBadAnswer = fmt.Errorf("%w: not a registry's answer", ErrUnavailable)
	// ErrElsewhere is the ErrUnavailable of somebody that the registry sends to:
	// storage, another registry, a token server. It says nothing of the
	// registry itself, which may give another address when it is asked again.
	ErrElsewhere = fmt.Errorf("%w: what it leads to gives no answer", ErrUnavailable)
	// ErrDenied: the upstream refused these credentials, or anonymous access.
	ErrDenied = errors.New("upstream denied access")
	// ErrNotFound: the upstream says that there is no such content.
	ErrNotFound = errors.New("not found upstream")
	// ErrNameUnknown is the ErrNotFound of a whole repository.
	ErrNameUnknown = fmt.Errorf("%w: no such repository", ErrNotFound)
	// ErrUnsupported: the upstream has no such API for this request.
	ErrUnsupported = errors.New("not supported by the upstream")
	// ErrNoAPI is the ErrUnsupported of an upstream that seems to have no such
	// route at all: what it answers is no error of the specification about a
	// repository or a manifest. It may be remembered for a moment.
	ErrNoAPI = fmt.Errorf("%w: no such route", ErrUnsupported)
)

// RateLimitedError says that the upstream answered 429, or is known to do so
// until RetryAfter has passed.
type RateLimitedError struct {
	// RetryAfter is how long to wait before the next request, always positive.
	RetryAfter time.Duration

	elsewhere bool // it is a token server's, which is remembered there
}

func (e *RateLimitedError) Error() string {
	return fmt.Sprintf("upstream limits its rate: retry after %s", e.RetryAfter.Round(time.Second))
}

// RefusedError is the ErrBadAnswer of a registry that refuses a question, in a
// registry's form, with a status that has no meaning of its own here: such as
// 400, 406 or 415. Nothing is known; whoever asked first may be told the same.
type RefusedError struct {
	Status int // of HTTP, from 400 to 499
	Code   string
}

func (e *RefusedError) Error() string { return fmt.Sprintf("the upstream refuses with %d", e.Status) }

// Unwrap makes it an ErrBadAnswer.
func (e *RefusedError) Unwrap() error { return ErrBadAnswer }

// Content is an answer with a body. The caller MUST close Body.
type Content struct {
	Body io.ReadCloser
	// MediaType is the Content-Type without parameters; empty if not sent.
	MediaType string
	// Digest is the Docker-Content-Digest; empty if not sent or malformed.
	Digest Digest
	// Size is the size in bytes of the whole content, -1 if not known.
	Size int64
	// From is the offset in the whole content at which Body begins. It is 0
	// where the upstream ignored the asked range.
	From int64
	// Warnings are the values of Warning headers with code 299, verbatim.
	Warnings []string
}

// TagList is one page of a repository's tags.
type TagList struct {
	Tags []string
	// Next is the query of the following page; nil on the last one.
	Next url.Values
}

// Registry is one remote registry, as far as a mirror reads it.
//
// Repository names and references are passed as the upstream knows them.
// Every wait is bounded. An error says what was asked and wraps one of the
// package's errors. All methods are safe for concurrent use.
type Registry interface {
	// Resolve asks for a manifest's descriptor by tag or digest, with HEAD, or
	// with GET where an answer to HEAD can't be believed (distribution-spec,
	// "Checking if content exists in the registry"). Fields that the upstream
	// does not tell are empty; Size is -1 then.
	Resolve(ctx context.Context, repo, ref string) (Descriptor, error)
	// Manifest asks GET for a manifest by tag or digest. The body is not yet
	// proven to match any digest.
	Manifest(ctx context.Context, repo, ref string) (Content, error)
	// ResolveBlob asks for a blob's descriptor, with HEAD, or with GET where an
	// answer to HEAD can't be believed. Size is -1 where it is not told.
	ResolveBlob(ctx context.Context, repo string, d Digest) (Descriptor, error)
	// Blob asks GET for a blob, from the offset from on, n bytes of it, or all
	// the rest where n is negative. An upstream that knows no Range answers
	// with Content.From = 0 and the whole blob. The body is not proven. A body
	// that stays silent too long fails with ErrTimeout, one that ends early
	// with ErrUnavailable: neither ends in io.EOF.
	Blob(ctx context.Context, repo string, d Digest, from, n int64) (Content, error)
	// Referrers asks the Referrers API and returns the descriptors of all its
	// pages. ErrUnsupported where nothing speaks for such an API, and the
	// upstream's first answer against it. An upstream that was seen to have it
	// is ErrUnavailable then. It may take over a minute.
	Referrers(ctx context.Context, repo string, subject Digest) ([]Descriptor, error)
	// Tags asks for one page of a repository's tags. The query page is sent as
	// it is: n and last, or the Next of an earlier TagList. Where the upstream
	// takes no n that large, the page is put together from smaller ones.
	Tags(ctx context.Context, repo string, page url.Values) (TagList, error)
}
