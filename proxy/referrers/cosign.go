package referrers

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// CosignTag is a tag under which cosign attaches an artifact that has no
// subject.
type CosignTag struct {
	Tag string
	// ArtifactType is the type that cosign itself gives such an artifact when
	// it does use a subject (its OCI 1.1 mode).
	ArtifactType string
}

var cosignSuffixes = []string{"sig", "att", "sbom"}

// CosignTags are the tags of cosign's legacy scheme for subject: signatures,
// attestations, SBOMs. There are none if they would be too long for tags, as
// for sha512.
func CosignTags(subject Digest) []CosignTag {
	if !wellFormed(subject) {
		return nil
	}
	base := strings.Replace(string(subject), ":", "-", 1)
	var tags []CosignTag
	for _, suffix := range cosignSuffixes {
		tag := base + "." + suffix
		if len(tag) > maxTag || tag != escapeTag(tag) {
			continue
		}
		tags = append(tags, CosignTag{
			Tag:          tag,
			ArtifactType: "application/vnd.dev.cosign.artifact." + suffix + ".v1+json",
		})
	}
	return tags
}

// CosignSubjectOf is the subject to which cosign attaches something by a tag.
func CosignSubjectOf(tag string) (Digest, bool) {
	base, suffix, ok := strings.Cut(tag, ".")
	if !ok || !slices.Contains(cosignSuffixes, suffix) {
		return "", false
	}
	return SubjectOf(base)
}

// Describe describes the manifest with the digest child that is attached to
// subject by this tag. Only the name of the tag binds it, so nothing but a
// manifest is read as one: an image, an index or an artifact, with the members
// that those have. It returns
//
//   - ErrNotReferrer for what is left out: the subject itself, and what refers
//     to another one;
//   - ErrUnverified or ErrMalformed if it cannot be told.
func (t CosignTag) Describe(mediaType string, doc *Document, child, subject Digest) (Descriptor, error) {
	fail := func(err error) (Descriptor, error) {
		return Descriptor{}, fmt.Errorf("tag %s: %w", t.Tag, err)
	}
	if child.Validate() != nil || child.Algorithm().FromBytes(doc.Bytes()) != child {
		return fail(ErrUnverified)
	}
	described, err := describe(child.Algorithm(), mediaType, doc)
	if err != nil {
		return fail(err)
	}
	if err := checkShape(described.Descriptor.MediaType, doc); err != nil {
		return fail(err)
	}
	if child == subject || described.Subject != nil && described.Subject.Digest != subject {
		return fail(ErrNotReferrer)
	}
	return described.As(t.ArtifactType), nil
}

// checkShape returns ErrMalformed unless a manifest has the members of its kind.
func checkShape(mediaType string, doc *Document) error {
	ok := false
	switch kindOf(mediaType) {
	case kindIndex:
		_, err := doc.Index()
		return err
	case kindImage:
		var version int
		_, hasConfig := descriptor(doc.Member("config"))
		ok = json.Unmarshal(doc.Member("schemaVersion"), &version) == nil && version == 2 &&
			hasConfig && !absent(doc.Member("layers")) && areDescriptors(doc.Member("layers")) && absent(doc.Member("manifests"))
	case kindArtifact:
		ok = areDescriptors(doc.Member("blobs")) && absent(doc.Member("manifests"))
	}
	if !ok || !absent(doc.Member("errors")) {
		return fmt.Errorf("%w: it is no %s", ErrMalformed, mediaType)
	}
	return nil
}

// areDescriptors says whether a member is a list of descriptors, or is absent.
func areDescriptors(raw json.RawMessage) bool {
	ok := true
	err := elements(raw, func(element json.RawMessage) {
		if _, is := descriptor(element); !is {
			ok = false
		}
	})
	return ok && err == nil
}
