// Package pull holds the rules of pulling through: what is asked of which
// upstream, when, and what is kept. It speaks no HTTP.
package pull

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"

	"github.com/entrepot/entrepot/proxy/flight"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/upstream"
)

// The words of package metadata, for those who ask for content by them.
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
	// ErrForbidden: the configuration does not let this repository through.
	ErrForbidden = errors.New("the configuration does not allow this repository")
	// ErrBusy: more downloads are under way than a mirror can look after.
	ErrBusy = flight.ErrBusy
	// ErrOffline: nothing is kept, and the configuration forbids asking.
	ErrOffline = fmt.Errorf("%w: this mirror is offline and keeps no copy", upstream.ErrUnavailable)
)

// WarnedError is an error that clients are told more about than its status
// says: with a Warning 299 (RFC 9111, section 5.5).
type WarnedError struct {
	Err     error
	Warning string // without quotes
}

func (e *WarnedError) Error() string { return e.Err.Error() + " (" + e.Warning + ")" }
func (e *WarnedError) Unwrap() error { return e.Err }

// StaleError is an error that was the upstream's word when it could be asked,
// as a stale answer is: clients are told so with a Warning 110.
type StaleError struct{ Err error }

func (e *StaleError) Error() string { return e.Err.Error() }
func (e *StaleError) Unwrap() error { return e.Err }

// Outcome says how an answer came about, for metrics and the log.
type Outcome string

// The outcomes of a pull.
const (
	Hit         Outcome = "hit"         // from what is kept
	Miss        Outcome = "miss"        // fetched for this request
	Joined      Outcome = "joined"      // shared a download that was under way
	Revalidated Outcome = "revalidated" // kept, and the upstream said it still stands
	Stale       Outcome = "stale"       // kept, and the upstream could not be asked
	Healed      Outcome = "healed"      // kept and found damaged, the rest fetched again
	Passed      Outcome = "passed"      // a range passed through
	Negative    Outcome = "negative"    // a remembered "not found"
	Deleted     Outcome = "deleted"     // kept, and the upstream says that its tag is gone
)

// Manifest is a manifest with its exact bytes.
type Manifest struct {
	// Descriptor has the exact media type, the digest and the size.
	Descriptor Descriptor
	// Bytes are the exact bytes. They are shared: nobody changes them.
	Bytes []byte
	// Stale is set where the upstream could not be asked whether it stands.
	Stale bool
	// Warnings are Warning headers with code 299: the upstream's, and what this
	// mirror has to say of a tag that the upstream deleted.
	Warnings []string
	Outcome  Outcome

	passed bool // it can't be kept, and is fetched each time
}

// Blob is a blob that is kept, or on its way. It is used by one goroutine.
type Blob interface {
	Digest() Digest
	// Size is the size in bytes, or -1 where it is not known until the end.
	Size() int64
	Outcome() Outcome
	// WriteRange writes n bytes from off to w, all the rest where n is
	// negative, in pieces of at most 256 KiB. Bytes on disk are copied from an
	// *io.LimitedReader over a syscall.Conn, so that w may use sendfile. If it
	// fails with nothing written, the error can still become an answer; after
	// that it can only break the connection.
	WriteRange(ctx context.Context, w io.Writer, off, n int64) (written int64, err error)
	Close() error
}

// Tags is one page of a repository's tags.
type Tags struct {
	Tags []string
	// Next is the query of the next page; nil on the last one.
	Next    url.Values
	Stale   bool
	Outcome Outcome
}

// Referrers is everything known to have one manifest as its subject.
type Referrers struct {
	Manifests []Descriptor
	// Stale is set where the upstream could not be asked, or not all of it.
	Stale bool
	// Partial is set where there may be more, and nobody ever said what: the
	// list is no ground to say of anything that it is not there.
	Partial bool
	Outcome Outcome
}
