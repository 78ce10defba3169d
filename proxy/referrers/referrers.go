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

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/upstream/manifest"
)

// Digest is an algorithm and a hash, as in sha256:….
type Digest = digest.Digest

// Descriptor is a content descriptor: media type, digest and size in bytes.
type Descriptor = ocispec.Descriptor

var (
	// ErrMalformed means that the bytes are not a manifest, or not an
	// unambiguous one.
	ErrMalformed = manifest.ErrMalformed
	// ErrNoIndex means that a manifest is of another kind than an index.
	ErrNoIndex = manifest.ErrNoIndex
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

// wellFormed says whether d can be requested from a registry.
func wellFormed(d Digest) bool { return manifest.WellFormed(d) }
