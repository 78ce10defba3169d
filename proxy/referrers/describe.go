package referrers

import (
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
)

// Described is a manifest with the descriptor that a list of referrers shows
// for it.
type Described struct {
	// Descriptor is the manifest's entry in a list (W51).
	Descriptor Descriptor
	// Subject is the manifest that this one refers to, or nil if it names none.
	// Its Size is -1 if it is not given.
	Subject *Descriptor

	declared bool // the manifest has an artifactType of its own
}

// Describe derives the descriptor of a manifest from its bytes
// (distribution-spec, "Listing Referrers"; W51), under its sha256 digest.
//
// The media type is the one in the manifest, else the given one, else the one
// that its fields suggest: storage sends manifests with types of its own (W46).
// artifactType is the manifest's own. If an image
// manifest has none, it is the media type of its config, whatever that is: the
// specification makes no exception for application/vnd.oci.empty.v1+json. (Real
// lists show that type for manifests that do have an artifactType of their own;
// deriving the descriptor corrects that.) It is empty for an index, and for a
// manifest without a config.
//
// All kinds of manifests, including unknown ones, are read by the fields that
// they share. A member of the wrong type counts as absent. Describe returns
// ErrMalformed for bytes that are not a JSON object, that contain a member
// twice, or that are larger than 8 MiB, and if the descriptor would be too large
// for a list.
func Describe(mediaType string, doc *Document) (Described, error) {
	return describe(digest.Canonical, mediaType, doc)
}

// maxDescriptor is how many bytes the texts of a descriptor have at most: it stands
// in a list with thousands of others, in records, and in memory. Signatures with
// their certificates have some ten thousand.
const maxDescriptor = 256 << 10

// errLarge is the ErrMalformed of a manifest whose descriptor is too large. It may
// refer to what it is asked for.
var errLarge = fmt.Errorf("%w: too large for a list", ErrMalformed)

// sizeOf is how many bytes the texts of a descriptor have.
func sizeOf(d Descriptor) int {
	n := len(d.MediaType) + len(d.ArtifactType)
	for name, value := range d.Annotations {
		n += len(name) + len(value)
	}
	return n
}

// describe is Describe with a digest of the given algorithm, which must be
// available.
func describe(by digest.Algorithm, mediaType string, doc *Document) (Described, error) {
	if err := check(doc); err != nil {
		return Described{}, err
	}
	if own := text(doc.Member("mediaType")); own != "" {
		mediaType = own
	} else if isGeneric(mediaType) {
		mediaType = mediaTypeByShape(doc)
	}
	if mediaType == "" {
		return Described{}, fmt.Errorf("%w: it has no media type", ErrMalformed)
	}
	out := Described{Descriptor: Descriptor{
		MediaType:    mediaType,
		Digest:       by.FromBytes(doc.Bytes()),
		Size:         int64(len(doc.Bytes())),
		ArtifactType: text(doc.Member("artifactType")),
		Annotations:  texts(doc.Member("annotations")),
	}}
	if n := sizeOf(out.Descriptor); n > maxDescriptor {
		return Described{}, fmt.Errorf("%w: %d bytes of annotations and types", errLarge, n)
	}
	out.declared = out.Descriptor.ArtifactType != ""
	if !out.declared && kindOf(mediaType) == kindImage {
		if config, err := members(doc.Member("config"), "mediaType"); err == nil {
			out.Descriptor.ArtifactType = text(config["mediaType"])
		}
	}
	if subject, ok := descriptor(doc.Member("subject")); ok {
		out.Subject = &subject
	}
	return out, nil
}

// As returns the descriptor of a manifest that is attached without a subject.
// It has the given artifact type, unless the manifest declares its own.
func (d Described) As(artifactType string) Descriptor {
	out := d.Descriptor
	if !d.declared {
		out.ArtifactType = artifactType
	}
	return out
}

// Verify describes the manifest that a list names by the digest child, under
// that digest. It returns
//
//   - ErrUnverified if the bytes do not have that digest. Whether the child
//     refers to the subject is then unknown, and must not be treated as "no";
//   - ErrNotReferrer if the manifest's subject is not the given one. That is
//     certain, and the child is left out. Lists under a truncated tag contain
//     children of other subjects (W50), and no claim of a list is trusted. What
//     is described is returned all the same: it may name no subject at all.
//
// Bytes with the right digest that are not a manifest have no subject: then the
// error is both ErrNotReferrer and ErrMalformed.
func Verify(mediaType string, doc *Document, child, subject Digest) (Described, error) {
	if err := child.Validate(); err != nil {
		return Described{}, fmt.Errorf("referrer %s: %w: %w", child, ErrUnverified, err)
	}
	if got := child.Algorithm().FromBytes(doc.Bytes()); got != child {
		return Described{}, fmt.Errorf("referrer %s: %w: its digest is %s", child, ErrUnverified, got)
	}
	described, err := describe(child.Algorithm(), mediaType, doc)
	if errors.Is(err, errLarge) {
		return Described{}, fmt.Errorf("referrer %s: %w", child, err)
	}
	if err != nil {
		return Described{}, fmt.Errorf("referrer %s: %w: %w", child, ErrNotReferrer, err)
	}
	if described.Subject == nil || described.Subject.Digest != subject {
		return described, fmt.Errorf("referrer %s: %w %s", child, ErrNotReferrer, subject)
	}
	return described, nil
}

// DescribeListed describes a manifest that a list names as a referrer of
// subject. For what a registry's API lists, isAPI is set: some list manifests
// without a subject on purpose (Harbor does with cosign's tags), and their word
// is taken for it. It returns
//
//   - ErrNotReferrer for what is left out: the subject itself, and what refers
//     to another one, or to none although no API lists it;
//   - ErrUnverified or ErrMalformed if it cannot be told.
func DescribeListed(isAPI bool, mediaType string, doc *Document, child, subject Digest) (Descriptor, error) {
	if child == subject {
		return Descriptor{}, fmt.Errorf("referrer %s: %w, it is the subject itself", child, ErrNotReferrer)
	}
	described, err := Verify(mediaType, doc, child, subject)
	switch {
	case isAPI && errors.Is(err, ErrMalformed):
		return Descriptor{}, fmt.Errorf("referrer %s: %w", child, ErrMalformed)
	case isAPI && errors.Is(err, ErrNotReferrer) && described.Subject == nil:
		return described.Descriptor, nil
	case err != nil:
		return Descriptor{}, err
	}
	return described.Descriptor, nil
}
