package referrers

import "strings"

// CosignTag is a tag under which cosign attaches something without a subject.
type CosignTag struct {
	Tag string
	// ArtifactType is what cosign itself calls such content where it does use
	// a subject (its OCI 1.1 mode).
	ArtifactType string
}

// CosignTags are the tags of cosign's legacy scheme for subject: signatures,
// attestations, SBOMs. There are none where they would be too long for tags,
// as for sha512.
func CosignTags(subject Digest) []CosignTag {
	if !wellFormed(subject) {
		return nil
	}
	base := strings.Replace(string(subject), ":", "-", 1)
	var tags []CosignTag
	for _, suffix := range []string{"sig", "att", "sbom"} {
		tag := base + "." + suffix
		if len(tag) > maxTag || tag != tagged(tag) {
			continue
		}
		tags = append(tags, CosignTag{
			Tag:          tag,
			ArtifactType: "application/vnd.dev.cosign.artifact." + suffix + ".v1+json",
		})
	}
	return tags
}
