package referrers

import (
	"encoding/json"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/manifest"
)

// MaxPage is the size in bytes of the largest index that every client accepts
// (W8, W54): oras-go gives up at 4 MiB.
const MaxPage = 4<<20 - 1

const (
	indexHead = `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[`
	indexTail = `]}`
)

// Encode returns the image index that lists the descriptors in the given order
// (distribution-spec, "Listing Referrers"; W52). Equal lists give equal bytes,
// so that the index can be requested by its own digest (W57).
//
// A descriptor that is not [Whole] is an error, because no client could pull
// it.
func Encode(list []Descriptor) ([]byte, error) {
	index, _, err := encode(list, 0)
	return index, err
}

// Page encodes as many descriptors of list as fit into maxBytes, but at least
// one, and returns the rest. The next page begins [After] the digest of the
// last encoded one.
func Page(list []Descriptor, maxBytes int) (index []byte, rest []Descriptor, err error) {
	return encode(list, maxBytes)
}

// Whole says whether a list can show d as it is. If not, its manifest has to be
// read first.
func Whole(d Descriptor) bool {
	return d.MediaType != "" && d.Size >= 0 && wellFormed(d.Digest)
}

func encode(list []Descriptor, maxBytes int) (index []byte, rest []Descriptor, err error) {
	index = append(index, indexHead...)
	for i, d := range list {
		if !Whole(d) {
			return nil, nil, fmt.Errorf("encode referrer %s: its media type or its size is not known", d.Digest)
		}
		entry, err := json.Marshal(d)
		if err != nil {
			return nil, nil, fmt.Errorf("encode referrer %s: %w", d.Digest, err)
		}
		if i > 0 {
			if maxBytes > 0 && len(index)+len(",")+len(entry)+len(indexTail) > maxBytes {
				rest = list[i:]
				break
			}
			index = append(index, ',')
		}
		index = append(index, entry...)
	}
	return append(index, indexTail...), rest, nil
}

// Decode reads the descriptors of an index in which an upstream lists
// referrers: the content of a referrers tag. They are claims; see [Verify]. Size
// is -1 if it is not given; see [Whole].
//
// Unknown is not none, so only an index is read as a list; see
// [manifest.ReadIndex]. Entries without a usable digest are left out, because
// nobody could pull them; the others are still valid. If no entry is usable,
// the result is ErrMalformed, not an empty list. [DecodeAll] counts them.
func Decode(raw []byte) ([]Descriptor, error) {
	list, unusable, err := DecodeAll(raw)
	if err == nil && len(list) == 0 && unusable > 0 {
		err = fmt.Errorf("%w: none of its %d entries has a usable digest", ErrMalformed, unusable)
	}
	return list, err
}

// DecodeAll is like Decode, and returns how many entries are not usable.
func DecodeAll(raw []byte) (list []Descriptor, unusable int, err error) {
	if len(raw) > maxManifest {
		return nil, 0, fmt.Errorf("%w: %d bytes are too large", ErrMalformed, len(raw))
	}
	index, err := manifest.ReadIndex(raw)
	return index.Entries, index.Unusable, err
}
