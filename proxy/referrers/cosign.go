package referrers

import "strings"

// CosignTag is a tag under which cosign attaches an artifact that has no
// subject.
type CosignTag struct {
	Tag string
	// ArtifactType is the type that cosign itself gives such an artifact when
	// it does use a subject (its OCI 1.1 mode).
	ArtifactType string
}

// CosignTags are the tags of cosign's legacy scheme for subject: signatures,
// attestations, SBOMs. There are none if they would be too long for tags, as
// for sha512.
func CosignTags(subject Digest) []CosignTag {
	if !wellFormed(subject) {
		return nil
	}
	base := strings.Replace(string(subject), ":", "-", 1)
	var tags []CosignTag
	for _, suffix := range []string{"sig", "att", "sbom"} {
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
