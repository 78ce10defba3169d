package referrers

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// MaxPage is the size in bytes of the largest index that every client accepts
// (W8, W54): oras-go gives up at 4 MiB.
const MaxPage = 4<<20 - 1

const (
	indexHead = `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[`
	indexTail = `]}`
)

// MoreAnnotation is the annotation of an index that does not list all
// referrers, because clients would not accept one of that size. Its value says
// how many more the Referrers API lists.
const MoreAnnotation = "io.entrepot.referrers.more"

// EncodeTag returns the index to serve under the referrers tag of a subject,
// which has no pages: all of the list if that fits into maxBytes, else those
// that were attached last, as far as they say when they were created, with a
// [MoreAnnotation].
func EncodeTag(list []Descriptor, maxBytes int) ([]byte, error) {
	index, rest, err := encode(list, maxBytes)
	if err != nil || len(rest) == 0 && len(index) <= maxBytes {
		return index, err
	}
	latest := slices.Clone(list)
	slices.SortStableFunc(latest, func(a, b Descriptor) int { return created(b).Compare(created(a)) })
	more := fmt.Sprintf(`],"annotations":{%q:"%d more are listed by the Referrers API"}}`, MoreAnnotation, len(list)) // at least as long as it gets
	index, rest, err = encode(latest, maxBytes-len(more))
	if err != nil {
		return nil, err
	}
	more = fmt.Sprintf(`],"annotations":{%q:"%d more are listed by the Referrers API"}}`, MoreAnnotation, len(rest))
	return append(index[:len(index)-len(indexTail)], more...), nil
}

// created is when a manifest says that it was created, or the zero time.
func created(d Descriptor) time.Time {
	at, err := time.Parse(time.RFC3339, d.Annotations[ocispec.AnnotationCreated])
	if err != nil {
		return time.Time{}
	}
	return at
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
// referrers. They are claims; see [Verify]. Size is -1 if it is not given; see
// [Whole]. It returns the errors of [ReadIndex], and ErrMalformed if none of the
// entries is usable.
func Decode(doc *Document) ([]Descriptor, error) {
	list, unusable, err := ReadIndex(doc)
	if err == nil && len(list) == 0 && unusable > 0 {
		return nil, fmt.Errorf("%w: none of its %d entries has a usable digest", ErrMalformed, unusable)
	}
	return list, err
}

// ReadIndex is like Decode, and says how many entries have no usable digest:
// nobody could pull them, and the others are still valid. Unknown is not none,
// so only an index is read as a list; see [manifest.Document.Index].
func ReadIndex(doc *Document) (list []Descriptor, unusable int, err error) {
	if err := check(doc); err != nil {
		return nil, 0, err
	}
	index, err := doc.Index()
	return index.Entries, index.Unusable, err
}
