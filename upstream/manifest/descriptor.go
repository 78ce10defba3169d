package manifest

import (
	"encoding/json"
	"errors"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxDigest bounds the length of a digest with an unknown algorithm, because it
// becomes part of keys. The longest known one has 135 characters.
const maxDigest = 255

// WellFormed says whether d can be requested from a registry. That includes
// digests with unknown algorithms: an upstream may have such content, even
// though it cannot be verified here.
func WellFormed(d Digest) bool {
	if len(d) > maxDigest {
		return false
	}
	err := d.Validate()
	return err == nil || errors.Is(err, digest.ErrDigestUnsupported)
}

// ReadDescriptor reads a content descriptor (image-spec, "Content
// Descriptors"). It returns false if there is none, or if nobody could request
// its digest. Whatever else it lacks or has in another form is left out; Size is
// -1 then. Embedded data is left out: it may be large, and it is available in
// the manifest.
func ReadDescriptor(raw json.RawMessage) (Descriptor, bool) {
	// A list may contain millions of tiny elements. Do not parse those.
	if len(raw) < len(`{"digest":"a:b"}`) {
		return Descriptor{}, false
	}
	fields, err := Members(raw, "mediaType", "digest", "size", "artifactType", "annotations", "urls", "platform")
	if err != nil {
		return Descriptor{}, false
	}
	d := Descriptor{
		MediaType:    Text(fields["mediaType"]),
		Digest:       Digest(Text(fields["digest"])),
		Size:         size(fields["size"]),
		ArtifactType: Text(fields["artifactType"]),
		Annotations:  Texts(fields["annotations"]),
	}
	if !WellFormed(d.Digest) {
		return Descriptor{}, false
	}
	var urls []string
	if json.Unmarshal(fields["urls"], &urls) == nil {
		d.URLs = urls
	}
	var platform *ocispec.Platform
	if json.Unmarshal(fields["platform"], &platform) == nil {
		d.Platform = platform
	}
	return d, true
}

func size(raw json.RawMessage) int64 {
	n := int64(-1)
	if json.Unmarshal(raw, &n) != nil || n < 0 {
		return -1
	}
	return n
}
