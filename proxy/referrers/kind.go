package referrers

import (
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of manifests that are not defined by image-spec v1.1 (W10).
const (
	mediaTypeDockerManifest       = "application/vnd.docker.distribution.manifest.v2+json"
	mediaTypeDockerList           = "application/vnd.docker.distribution.manifest.list.v2+json"
	mediaTypeDockerSchema1        = "application/vnd.docker.distribution.manifest.v1+json"
	mediaTypeDockerSchema1Signed  = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	mediaTypeOCIArtifactManifest  = "application/vnd.oci.artifact.manifest.v1+json"
	mediaTypeORASArtifactManifest = "application/vnd.cncf.oras.artifact.manifest.v1+json"
)

// A kind says which fields of a manifest reference other content.
type kind int

const (
	kindUnknown kind = iota
	kindImage
	kindIndex
	kindArtifact
	kindSchema1
)

func kindOf(mediaType string) kind {
	switch mediaType {
	case ocispec.MediaTypeImageManifest, mediaTypeDockerManifest:
		return kindImage
	case ocispec.MediaTypeImageIndex, mediaTypeDockerList:
		return kindIndex
	case mediaTypeOCIArtifactManifest, mediaTypeORASArtifactManifest:
		return kindArtifact
	case mediaTypeDockerSchema1, mediaTypeDockerSchema1Signed:
		return kindSchema1
	}
	return kindUnknown
}

// NamesVerifiedBlobs says whether registries verify, when a manifest of that
// type is pushed, that the repository has the blobs that it names. They do so
// for config and layers of images. What else an index lists than manifests, and
// the blobs of artifact manifests, are nobody's to verify.
func NamesVerifiedBlobs(mediaType string) bool {
	k := kindOf(mediaType)
	return k == kindImage || k == kindSchema1
}

// isGeneric says whether a media type says nothing about a manifest: storage
// sends such types, and web servers.
func isGeneric(mediaType string) bool {
	switch mediaType {
	case "", "application/octet-stream", "binary/octet-stream", "application/json", "text/plain", "text/html":
		return true
	}
	return false
}

// mediaTypeByShape is the media type that a manifest's fields suggest, because
// OCI 1.0 made the mediaType field optional. It is empty if the fields match no
// kind or more than one.
func mediaTypeByShape(doc *Document) string {
	has := func(name string) bool { return !absent(doc.Member(name)) }
	index, image, schema1 := has("manifests"), has("config") || has("layers"), has("fsLayers")
	switch {
	case index && !image && !schema1:
		return ocispec.MediaTypeImageIndex
	case image && !index && !schema1:
		return ocispec.MediaTypeImageManifest
	case schema1 && !index && !image:
		return mediaTypeDockerSchema1
	}
	return ""
}
