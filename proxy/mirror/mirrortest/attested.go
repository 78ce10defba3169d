package mirrortest

import (
	"encoding/json"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Attested is an index of two platforms with BuildKit's attestations.
type Attested struct {
	Index     Descriptor
	Platforms []Descriptor
	Of        []Descriptor // attestations, by platform
	Blobs     []Descriptor // of attestations, by platform
}

// Attest adds an index with attestations to the origin, under a tag.
func (o *Origin) Attest(tag string) Attested {
	var a Attested
	index := ocispec.Index{MediaType: IndexType}
	index.SchemaVersion = 2
	for _, arch := range []string{"amd64", "arm64"} {
		image, _ := o.Image("app", "", Bytes(byte(len(a.Platforms)+7), 50))
		image.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
		a.Platforms = append(a.Platforms, image)
		index.Manifests = append(index.Manifests, image)
	}
	for i, image := range a.Platforms {
		config := o.Put("app", ocispec.MediaTypeImageConfig, fmt.Appendf(nil, `{"architecture":"unknown","of":%d,"tag":%q}`, i, tag))
		statement := o.Put("app", "application/vnd.in-toto+json", fmt.Appendf(nil, `{"_type":"statement","of":%d,"tag":%q}`, i, tag))
		raw, err := json.Marshal(ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []Descriptor{statement}})
		if err != nil {
			panic(err)
		}
		entry := o.Put("app", ocispec.MediaTypeImageManifest, raw)
		a.Of = append(a.Of, entry)
		a.Blobs = append(a.Blobs, statement)
		entry.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
		entry.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": image.Digest.String()}
		index.Manifests = append(index.Manifests, entry)
	}
	raw, err := json.Marshal(index)
	if err != nil {
		panic(err)
	}
	a.Index = o.Put("app", IndexType, raw, tag)
	return a
}
