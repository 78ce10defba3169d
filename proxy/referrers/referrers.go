// Package referrers reads what manifests say of one another: the descriptor
// of a referrer, derived from its bytes, and lists of them, merged from every
// source. It asks nobody and keeps nothing.
//
// Sections of the specification are those of distribution-spec v1.1, "Listing
// Referrers", "Referrers Tag Schema" and "Enabling the Referrers API", and of
// image-spec v1.1, "Image Manifest" and "Image Index".
package referrers

import (
	"errors"

	// The algorithms that digests may name.
	_ "crypto/sha256"
	_ "crypto/sha512"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Digest names content by algorithm and hash, as in sha256:….
type Digest = digest.Digest

// Descriptor names content by media type, digest and size in bytes.
type Descriptor = ocispec.Descriptor

var (
	// ErrMalformed: the bytes are no manifest that can be read in one way only.
	ErrMalformed = errors.New("malformed manifest")
	// ErrUnproven: the bytes are not shown to have the digest that was asked
	// for. Nothing is known of the content with that digest.
	ErrUnproven = errors.New("content not proven to match its digest")
	// ErrNotReferrer: the content is proven, and does not name the subject.
	ErrNotReferrer = errors.New("does not name the subject")
)

// maxManifest is the size in bytes of the largest manifest or list that is
// read. Clients give up at about 4 MiB (W8); twice that leaves room for a
// generous upstream and still bounds the work.
const maxManifest = 8 << 20

// maxDigest bounds the length of a digest of an algorithm that is not known
// here, for it becomes part of keys. The longest known one has 135 characters.
const maxDigest = 255

// wellFormed says whether d can be asked of a registry. That includes digests
// whose algorithm is not known here: content that can't be proven here is
// still content that an upstream may hold.
func wellFormed(d Digest) bool {
	if len(d) > maxDigest {
		return false
	}
	err := d.Validate()
	return err == nil || errors.Is(err, digest.ErrDigestUnsupported)
}
