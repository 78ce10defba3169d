package upstreamtest

import (
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// AddFallbackTag lists referrers under the tag of the referrers tag schema.
func (r *Registry) AddFallbackTag(repo string, subject digest.Digest, referrers ...ocispec.Descriptor) ocispec.Descriptor {
	return r.AddIndex(repo, subject.Algorithm().String()+"-"+subject.Encoded(), referrers...)
}
