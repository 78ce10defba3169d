// Package pull implements the rules of a pull-through cache: which upstream is
// asked for what, when it is asked, and what is cached. It knows nothing of
// HTTP, and nothing of how content is stored or evicted.
//
// Its invariants, with the tests that guard them:
//
//   - However many clients ask, one blob and one manifest cross the link once,
//     and a client that leaves changes nothing
//     (TestFiftyClientsOfOneColdBlobShareOneDownload,
//     TestFiftyColdPullsOfOneTagShareOneGET,
//     TestAClientThatLeavesDoesNotStopTheDownload).
//   - Content is served for a repository only if that repository is known to
//     have it (TestMembership).
//   - A cached answer is served if the upstream cannot be asked, and never if
//     the upstream refuses or denies it (TestFreshness).
//   - That something could not be found out is never an empty answer
//     (TestUnknownIsNotNone, TestTagListsAreNeverTruncated).
//   - No upstream is asked if the configuration says offline, and each question
//     has its answer at once (TestNoUpstreamIsAskedWhenOffline,
//     TestOfflineAnswers).
//
// A question to an upstream belongs to the mirror (package background), not to
// the client that asked it.
package pull

import (
	"context"
	"errors"
	"io"
	"net/url"
	"time"

	"github.com/entrepot/entrepot/proxy/flight"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/referrers"
)

// Types of package metadata, for the callers of this package.
type (
	// Digest names content by algorithm and hash, as in sha256:….
	Digest = metadata.Digest
	// Descriptor names content by media type, digest and size in bytes.
	Descriptor = metadata.Descriptor
	// Repository names a repository of a configured upstream.
	Repository = metadata.Repository
	// Reference names an image by a tag or a digest.
	Reference = metadata.Reference
)

var (
	// ErrForbidden means that the configuration does not allow this repository.
	ErrForbidden = errors.New("the configuration does not allow this repository")
	// ErrBusy means that as many downloads are under way as the mirror allows.
	ErrBusy = flight.ErrBusy
)

// WarnedError is an error that clients see with an explanation beyond its
// status, in a Warning header with code 299 (RFC 9111, section 5.5).
type WarnedError struct {
	Err     error
	Warning string // without quotes
}

func (e *WarnedError) Error() string { return e.Err.Error() + " (" + e.Warning + ")" }
func (e *WarnedError) Unwrap() error { return e.Err }

// StaleError is an error that repeats the upstream's last known answer, because
// the upstream cannot be asked now. Clients see it with a Warning header with
// code 110.
type StaleError struct{ Err error }

func (e *StaleError) Error() string { return e.Err.Error() }
func (e *StaleError) Unwrap() error { return e.Err }

// Outcome says how an answer was produced, for metrics and logs.
type Outcome string

// The outcomes of a pull.
const (
	Hit           Outcome = "hit"         // from the cache
	Miss          Outcome = "miss"        // fetched for this request
	Joined        Outcome = "joined"      // shared a download that was under way
	Revalidated   Outcome = "revalidated" // cached, and the upstream confirmed it
	Stale         Outcome = "stale"       // cached, and the upstream could not be asked
	Repaired      Outcome = "healed"      // cached and found damaged; the rest was downloaded again
	PassedThrough Outcome = "passed"      // a range fetched from the upstream and not cached
	Negative      Outcome = "negative"    // a remembered "not found"
	Deleted       Outcome = "deleted"     // cached, and the upstream says that the tag is gone
)

// Manifest is a manifest with its exact bytes.
type Manifest struct {
	// Descriptor has the exact media type, the digest and the size.
	Descriptor Descriptor
	// Bytes are the exact bytes. They are shared and must not be modified.
	Bytes []byte
	// Stale means that the upstream could not be asked whether the manifest is
	// current.
	Stale bool
	// Warnings are the values of Warning headers with code 299: those of the
	// upstream, and the mirror's own about a tag that the upstream has deleted.
	Warnings []string
	// At is when the upstream said what a tag points at, for a tag that carries
	// referrers. Else, and if it is not known, it is zero.
	At      time.Time
	Outcome Outcome

	uncacheable bool                // it is fetched from the upstream each time
	parsed      *referrers.Document // Bytes, if they have been parsed for this answer
}

// document is the manifest as it is read.
func (m Manifest) document() *referrers.Document {
	if m.parsed != nil {
		return m.parsed
	}
	return referrers.Parse(m.Bytes)
}

// Blob is a blob that is cached or being downloaded. It must be used by one
// goroutine at a time.
type Blob interface {
	Digest() Digest
	// Size is the size in bytes, or -1 if it is not known before the end.
	Size() int64
	Outcome() Outcome
	// WriteRange writes n bytes starting at off to w, or all remaining bytes if
	// n is negative, in pieces of at most 256 KiB. Bytes on disk are copied
	// from an *io.LimitedReader over a syscall.Conn, so that w can use
	// sendfile. If WriteRange fails before it has written anything, the caller
	// can still send an error response. After that, it can only close the
	// connection.
	WriteRange(ctx context.Context, w io.Writer, off, n int64) (written int64, err error)
	Close() error
}

// Tags is one page of a repository's tags.
type Tags struct {
	Tags []string
	// Next is the query of the next page, or nil on the last page.
	Next  url.Values
	Stale bool
	// Warnings are the mirror's own, with code 299.
	Warnings []string
	Outcome  Outcome
}

// Referrers are all known manifests with a given subject.
type Referrers struct {
	Manifests []Descriptor
	// List is Manifests as it is sent, if it is encoded already. If it is a long
	// one that is kept, Manifests is nil.
	List referrers.List
	// Stale means that at least one source could not be asked.
	Stale bool
	// Partial means that there was never a complete answer. The list must not
	// be used to conclude that something does not exist.
	Partial bool
	// At is when the upstream said so; if it was asked in several ways, the
	// oldest of them. It is zero for a stale list.
	At      time.Time
	Outcome Outcome

	of Digest // the digest of List, if it is a long one
}
