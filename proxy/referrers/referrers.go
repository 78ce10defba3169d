// Package referrers reads what manifests say about each other: the descriptor
// of a referrer, derived from its bytes, and lists of referrers, merged from
// all sources. It makes no requests and stores nothing.
//
// Section names are those of distribution-spec v1.1, "Listing Referrers",
// "Referrers Tag Schema" and "Enabling the Referrers API", and of image-spec
// v1.1, "Image Manifest" and "Image Index".
package referrers

import (
	"errors"
	"fmt"

	// The supported digest algorithms.
	_ "crypto/sha256"
	_ "crypto/sha512"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Digest is an algorithm and a hash, as in sha256:….
type Digest = digest.Digest

// Descriptor is a content descriptor: media type, digest and size in bytes.
type Descriptor = ocispec.Descriptor

var (
	// ErrMalformed means that the bytes are not a manifest, or not an
	// unambiguous one.
	ErrMalformed = errors.New("malformed manifest")
	// ErrNoIndex means that a manifest is of another kind than an index.
	ErrNoIndex = fmt.Errorf("%w: not an index", ErrMalformed)
	// ErrUnverified means that the bytes have not been shown to match the
	// requested digest. Nothing is known about the content with that digest.
	ErrUnverified = errors.New("content could not be verified against its digest")
	// ErrNotReferrer means that the content is verified and does not name the
	// subject.
	ErrNotReferrer = errors.New("does not name the subject")
)

// maxManifest is the size in bytes of the largest manifest or list that is
// read. Clients give up at about 4 MiB (W8). Twice that allows for a generous
// upstream and still bounds the work.
const maxManifest = 8 << 20

// maxDigest bounds the length of a digest with an unknown algorithm, because it
// becomes part of keys. The longest known one has 135 characters.
const maxDigest = 255

// wellFormed says whether d can be requested from a registry. That includes
// digests with unknown algorithms: an upstream may have such content, even
// though it cannot be verified here.
func wellFormed(d Digest) bool {
	if len(d) > maxDigest {
		return false
	}
	err := d.Validate()
	return err == nil || errors.Is(err, digest.ErrDigestUnsupported)
}
