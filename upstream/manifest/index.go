package manifest

import (
	"encoding/json"
	"fmt"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const mediaTypeDockerList = "application/vnd.docker.distribution.manifest.list.v2+json"

// Index is an index, as far as a list of manifests goes.
type Index struct {
	MediaType string // its own; empty if it does not say
	Entries   []Descriptor
	// Unusable is how many entries are not descriptors that anybody could
	// request. If there are any, it lists more than Entries.
	Unusable int
}

// ReadIndex is [Document.Index] of bytes that nothing else is read of.
func ReadIndex(raw []byte) (Index, error) { return Parse(raw).Index() }

// Index reads an index: a page of a Referrers API, or what a referrers tag
// points at. This is the only function that reads one as a list of referrers.
//
// Unknown is not none, so nothing but an index is read as one: an object with
// schemaVersion 2 and a list of manifests, without errors, without what only an
// image has, and with no other media type of its own. "manifests": null is an
// empty list only if the index says by its own media type that it is one: that
// is how Go encodes an empty one. A manifest of another kind is ErrNoIndex:
// somebody's own content. Anything else is ErrMalformed.
func (d *Document) Index() (Index, error) {
	if d.err != nil {
		return Index{}, d.err
	}
	var version int
	var errs []json.RawMessage
	index := Index{MediaType: Text(d.Member("mediaType"))}
	list := d.Member("manifests")
	declared := index.MediaType == ocispec.MediaTypeImageIndex || index.MediaType == mediaTypeDockerList
	isImage := slices.ContainsFunc([]string{"config", "layers", "blobs", "fsLayers"}, func(name string) bool { return !Absent(d.Member(name)) })
	hasErrors := !Absent(d.Member("errors")) && (json.Unmarshal(d.Member("errors"), &errs) != nil || len(errs) > 0)
	switch {
	case isImage && !hasErrors && !declared && Absent(list):
		return Index{}, fmt.Errorf("%w: it has the members of an image", ErrNoIndex)
	case json.Unmarshal(d.Member("schemaVersion"), &version) != nil || version != 2:
		return Index{}, fmt.Errorf("%w: not an index: it has no schemaVersion 2", ErrMalformed)
	case !declared && !Absent(d.Member("mediaType")):
		return Index{}, fmt.Errorf("%w: %.80q is not an index", ErrMalformed, index.MediaType)
	case hasErrors:
		return Index{}, fmt.Errorf("%w: not an index, but errors", ErrMalformed)
	case isImage:
		return Index{}, fmt.Errorf("%w: not an index, but an image", ErrMalformed)
	case list == nil, Absent(list) && !declared:
		return Index{}, fmt.Errorf("%w: not an index: it has no manifests", ErrMalformed)
	}
	var err error
	if index.Entries, index.Unusable, err = d.Entries(); err != nil {
		return Index{}, err
	}
	return index, nil
}
