package referrers

import (
	"fmt"

	"github.com/opencontainers/go-digest"
)

// Described is a manifest as a list of referrers shows it.
type Described struct {
	// Descriptor is what a list says of the manifest (W51).
	Descriptor Descriptor
	// Subject is the manifest that this one refers to, nil where it names
	// none. Its Size is -1 where it is not told.
	Subject *Descriptor

	declared bool // the manifest has an artifactType of its own
}

// Describe derives the descriptor of a manifest from its bytes
// (distribution-spec, "Listing Referrers"; W51), under its sha256 digest.
//
// The media type is the given one, or else the one the manifest names, or else
// what its fields belong to. artifactType is the manifest's own; where an
// image manifest has none, the media type of its config, whatever that is:
// the specification makes no exception for application/vnd.oci.empty.v1+json.
// (Lists in the wild show that type for manifests that do have an artifactType
// of their own; that is the mistake which deriving anew mends.) Of an index,
// and of a manifest without config, it stays empty.
//
// All kinds are read by the fields they share, unknown ones too. A member of
// the wrong type counts as absent. It returns ErrMalformed for bytes that are
// not a JSON object, name a member twice or are larger than 8 MiB.
func Describe(mediaType string, raw []byte) (Described, error) {
	return describe(digest.Canonical, mediaType, raw)
}

// describe is Describe under a digest of the given algorithm, which must be
// available.
func describe(by digest.Algorithm, mediaType string, raw []byte) (Described, error) {
	fields, err := document(raw, "mediaType", "artifactType", "config", "manifests", "layers", "fsLayers", "subject", "annotations")
	if err != nil {
		return Described{}, err
	}
	if mediaType == "" {
		mediaType = text(fields["mediaType"])
	}
	if mediaType == "" {
		mediaType = mediaTypeByShape(fields)
	}
	if mediaType == "" {
		return Described{}, fmt.Errorf("%w: nothing says its media type", ErrMalformed)
	}
	out := Described{Descriptor: Descriptor{
		MediaType:    mediaType,
		Digest:       by.FromBytes(raw),
		Size:         int64(len(raw)),
		ArtifactType: text(fields["artifactType"]),
		Annotations:  texts(fields["annotations"]),
	}}
	out.declared = out.Descriptor.ArtifactType != ""
	if !out.declared && kindOf(mediaType) == kindImage {
		if config, err := members(fields["config"], "mediaType"); err == nil {
			out.Descriptor.ArtifactType = text(config["mediaType"])
		}
	}
	if subject, ok := descriptor(fields["subject"]); ok {
		out.Subject = &subject
	}
	return out, nil
}

// As returns the descriptor of a manifest that is attached by other means than
// a subject, labelled with the artifact type of what it is, unless the
// manifest says by itself what it is.
func (d Described) As(artifactType string) Descriptor {
	out := d.Descriptor
	if !d.declared {
		out.ArtifactType = artifactType
	}
	return out
}

// Verify describes the manifest that a list names by the digest child, under
// that digest. It fails unless
//   - the bytes have that digest: ErrUnproven. Whether the child refers to
//     the subject stays unknown, and must not be read as "no";
//   - the manifest's own subject is the one given: ErrNotReferrer. That is
//     known, and the child is left out. Lists of a cut tag hold children of
//     other subjects (W50), and nothing that a list claims is taken for true.
//
// Proven bytes that are no manifest name no subject either: ErrNotReferrer,
// and ErrMalformed as well.
func Verify(mediaType string, raw []byte, child, subject Digest) (Described, error) {
	if err := child.Validate(); err != nil {
		return Described{}, fmt.Errorf("referrer %s: %w: %w", child, ErrUnproven, err)
	}
	if got := child.Algorithm().FromBytes(raw); got != child {
		return Described{}, fmt.Errorf("referrer %s: %w: it is %s", child, ErrUnproven, got)
	}
	d, err := describe(child.Algorithm(), mediaType, raw)
	if err != nil {
		return Described{}, fmt.Errorf("referrer %s: %w: %w", child, ErrNotReferrer, err)
	}
	if d.Subject == nil || d.Subject.Digest != subject {
		return Described{}, fmt.Errorf("referrer %s: %w %s", child, ErrNotReferrer, subject)
	}
	return d, nil
}
