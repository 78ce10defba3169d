// Package upstream reads from remote registries. [Registry] is the contract,
// [Remote] implements it over HTTP, and each decorator adds one policy. Package
// upstreamtest holds a scriptable registry for tests.
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

// Callers branch on these errors with errors.Is and errors.As. Unless the
// caller's context ended the request, an error of a Registry wraps exactly one
// of ErrUnavailable, ErrDenied, ErrNotFound, ErrUnsupported and
// *RateLimitedError.
var (
	// ErrUnavailable: there was no answer that can be trusted. Nothing is known
	// about what was requested.
	ErrUnavailable = errors.New("upstream is unavailable")
	// ErrTimeout is the ErrUnavailable of an upstream that sent nothing for too
	// long.
	ErrTimeout = fmt.Errorf("%w: no answer in time", ErrUnavailable)
	// ErrRefused is the ErrUnavailable of an upstream that can't be reached:
	// connection refused, no route, no such host. It is not retried.
	ErrRefused = fmt.Errorf("%w: cannot connect", ErrUnavailable)
	// ErrInvalidResponse is the ErrUnavailable of a response that no registry would
	// send: a web page, a line of an ingress, an odd status, a wrong length. It
	// is not retried.
	ErrInvalidResponse = fmt.Errorf("%w: not a valid registry response", ErrUnavailable)
	// ErrThirdParty is the ErrUnavailable of a host that the registry refers
	// to: storage, another registry, a token server. It says nothing about the
	// registry itself, which may name another address next time.
	ErrThirdParty = fmt.Errorf("%w: a host that it refers to does not answer", ErrUnavailable)
	// ErrProbed is the ErrUnavailable of an upstream that could not be asked, and
	// that another request is just probing. The next one may be answered.
	ErrProbed = fmt.Errorf("%w: another request finds out whether it is back", ErrUnavailable)
	// ErrStale is the ErrUnavailable of a mirror that answers although it could
	// not ask its own upstream (RFC 9111, section 5.5.1: Warning 110). What it
	// says was true once.
	ErrStale = fmt.Errorf("%w: it could not ask its own upstream", ErrUnavailable)
	// ErrDenied: the upstream refused these credentials, or anonymous access.
	ErrDenied = errors.New("upstream denied access")
	// ErrNotFound: the upstream says that there is no such content.
	ErrNotFound = errors.New("not found upstream")
	// ErrNameUnknown is the ErrNotFound of a whole repository.
	ErrNameUnknown = fmt.Errorf("%w: no such repository", ErrNotFound)
	// ErrUnsupported: the upstream does not have the API that the request
	// needs.
	ErrUnsupported = errors.New("not supported by the upstream")
	// ErrNoAPI is the ErrUnsupported of an upstream that does not seem to have
	// such a route at all: its response is not an error of the specification
	// about a repository or a manifest. It may be remembered for a short time.
	ErrNoAPI = fmt.Errorf("%w: no such route", ErrUnsupported)
)

// RateLimitedError says that the upstream answered 429, or is known to do so
// until RetryAfter has passed.
type RateLimitedError struct {
	// RetryAfter is how long to wait before the next request, always positive.
	RetryAfter time.Duration

	elsewhere bool // a token server's limit, which is remembered there
}

func (e *RateLimitedError) Error() string {
	return fmt.Sprintf("upstream limits its rate: retry after %s", e.RetryAfter.Round(time.Second))
}

// RefusedError is the ErrInvalidResponse of a registry that refuses a request, with
// an error list, but with a status that has no meaning here, such as 400, 406
// or 415. Nothing is known about what was requested. The client may get the
// same response.
type RefusedError struct {
	Status int // of HTTP, from 400 to 499
	Code   string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("the upstream refused the request with status %d", e.Status)
}

// Unwrap makes it an ErrInvalidResponse.
func (e *RefusedError) Unwrap() error { return ErrInvalidResponse }

// Content is a response with a body. The caller MUST close Body.
type Content struct {
	Body io.ReadCloser
	// MediaType is the Content-Type without parameters; empty if not sent.
	MediaType string
	// Digest is the Docker-Content-Digest; empty if not sent or malformed.
	Digest Digest
	// Size is the size of the whole content in bytes, or -1 if unknown.
	Size int64
	// From is the offset in the whole content at which Body begins. It is 0 if
	// the upstream ignored the requested range.
	From int64
	// Whole says that Body is the whole content although a range was requested:
	// the upstream has no ranges.
	Whole bool
	// ETag is the strong validator of the content (RFC 9110, section 8.8.3);
	// empty if not sent.
	ETag string
	// Warnings are the values of Warning headers with code 299, verbatim.
	Warnings []string
	// Stale says that the upstream is a mirror that could not ask its own
	// upstream (Warning 110). For a tag, it may point at something else by now.
	Stale bool
	// IsAwaited says whether other requests wait for what this one holds until
	// Body is closed. nil means that none does.
	IsAwaited func() bool
}

// ReferrersList is what a Referrers API lists.
type ReferrersList struct {
	// Manifests are what the registry says of them. Each digest parses, but its
	// algorithm may be unknown.
	Manifests []Descriptor
	// Unusable is how many entries could not be read as a descriptor. If there
	// are any, there is more than Manifests.
	Unusable int
	// At is when the first page was answered. If a mirror says how old its
	// answers are, it is when the oldest of them was its own upstream's.
	At time.Time
	// Stale says that the upstream is a mirror that could not ask its own
	// upstream (Warning 110). There may be more by now.
	Stale bool
}

// TagList is one page of a repository's tags.
type TagList struct {
	Tags []string
	// Next is the query of the following page; nil on the last one.
	Next url.Values
	// Stale says that the upstream is a mirror that could not ask its own
	// upstream (Warning 110). There may be others by now.
	Stale bool
}

// Registry is one remote registry, as far as a mirror reads from it.
//
// Repositories and references are passed as the upstream names them. All waits
// are bounded. An error says what was requested and wraps one of the package's
// errors. All methods are safe for concurrent use.
type Registry interface {
	// Resolve requests a manifest's descriptor by tag or digest, with HEAD, or
	// with GET if the response to HEAD can't be trusted (distribution-spec,
	// "Checking if content exists in the registry"). Fields that the upstream
	// does not send are empty, or -1 for Size. A tag that a mirror could not
	// check is ErrStale.
	Resolve(ctx context.Context, repo, ref string) (Descriptor, error)
	// Manifest requests a manifest by tag or digest. The body has not been
	// verified against any digest.
	Manifest(ctx context.Context, repo, ref string) (Content, error)
	// ResolveBlob requests a blob's descriptor, with HEAD, or with GET if the
	// response to HEAD can't be trusted. Size is -1 if the upstream does not
	// send it.
	ResolveBlob(ctx context.Context, repo string, d Digest) (Descriptor, error)
	// Blob requests n bytes of a blob from offset from on, or all the rest if n
	// is negative. An upstream without support for Range sends the whole blob,
	// with Content.From = 0. The body has not been verified. It never ends in
	// io.EOF too early: if nothing arrives for too long it fails with
	// ErrTimeout, and if it ends early with ErrUnavailable.
	Blob(ctx context.Context, repo string, d Digest, from, n int64) (Content, error)
	// Tags requests one page of a repository's tags. The query page is sent as
	// it is: n and last, or the Next of an earlier TagList. If the upstream
	// refuses so large an n, the page is assembled from smaller ones.
	Tags(ctx context.Context, repo string, page url.Values) (TagList, error)
}

// Endpoint is a Registry at one address. Several of them may make up one
// registry for everything but referrers: each endpoint may know some that the
// others do not, and has the API or not.
type Endpoint interface {
	Registry
	// Referrers requests all pages of the Referrers API. It returns
	// ErrUnsupported if there is no sign that the upstream has the API. If the
	// upstream is known to have it, the same response is an ErrUnavailable. It
	// may take over a minute. A failure after the first page returns the list so
	// far with an ErrUnavailable.
	Referrers(ctx context.Context, repo string, subject Digest) (ReferrersList, error)
}
