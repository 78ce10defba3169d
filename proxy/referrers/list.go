package referrers

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"sort"

	"github.com/entrepot/entrepot/upstream/manifest"
)

// List is an encoded list of referrers: the index that lists all of them, and
// where each entry of it ends and of which artifact type it is. It is encoded
// once. What clients are sent of it is cut from it, so that it costs what the
// answer's size costs. The zero List is none.
//
// It is one piece of memory, so that it is kept like any other content:
//
//	the index
//	for each entry: where it ends, and the number of its type
//	the types, each with its length before it
//	the size of the index, and how many entries there are
type List struct {
	raw   []byte
	index []byte // all of it
	table []byte
	types []byte
}

const (
	listNumber  = 4 // bytes of a number
	listEntry   = 2 * listNumber
	listTrailer = 2 * listNumber
)

// NewList encodes the index that lists the descriptors in the given order
// (distribution-spec, "Listing Referrers"; W52). Equal lists give equal bytes.
//
// A descriptor that is not [Whole] is an error, because no client could pull
// it.
func NewList(all []Descriptor) (List, error) {
	raw := []byte(indexHead)
	var table []byte
	var types []string
	numbers := map[string]uint32{}
	for i, d := range all {
		if !Whole(d) {
			return List{}, fmt.Errorf("encode referrer %s: its media type or its size is not known", d.Digest)
		}
		entry, err := json.Marshal(d)
		if err != nil {
			return List{}, fmt.Errorf("encode referrer %s: %w", d.Digest, err)
		}
		if i > 0 {
			raw = append(raw, ',')
		}
		raw = append(raw, entry...)
		number, known := numbers[d.ArtifactType]
		if !known {
			number = uint32(len(types))
			numbers[d.ArtifactType], types = number, append(types, d.ArtifactType)
		}
		table = binary.BigEndian.AppendUint32(table, uint32(len(raw)))
		table = binary.BigEndian.AppendUint32(table, number)
	}
	raw = append(raw, indexTail...)
	size := len(raw)
	raw = append(raw, table...)
	for _, t := range types {
		raw = binary.BigEndian.AppendUint32(raw, uint32(len(t)))
		raw = append(raw, t...)
	}
	raw = binary.BigEndian.AppendUint32(raw, uint32(size))
	raw = binary.BigEndian.AppendUint32(raw, uint32(len(all)))
	return ListOf(slices.Clip(raw)), nil
}

// ListOf is the list with these [List.Bytes].
func ListOf(raw []byte) List {
	number := func(at int) int { return int(binary.BigEndian.Uint32(raw[at:])) }
	trailer := len(raw) - listTrailer
	size, entries := number(trailer), number(trailer+listNumber)
	behind := size + entries*listEntry
	return List{raw: raw, index: raw[:size:size], table: raw[size:behind], types: raw[behind:trailer]}
}

// Bytes are the bytes that the list consists of. They must not be changed.
func (l List) Bytes() []byte { return l.raw }

// IsZero says whether it is the zero List, which is not an empty one.
func (l List) IsZero() bool { return l.raw == nil }

// Len is how many it lists.
func (l List) Len() int { return len(l.table) / listEntry }

// Types are the artifact types of what it lists, by their numbers.
func (l List) Types() (all []string) {
	for t := range l.eachType {
		all = append(all, string(t))
	}
	return all
}

func (l List) eachType(yield func([]byte) bool) {
	for rest := l.types; len(rest) > 0; {
		n := listNumber + int(binary.BigEndian.Uint32(rest))
		if !yield(rest[listNumber:n]) {
			return
		}
		rest = rest[n:]
	}
}

// Descriptors decodes the list.
func (l List) Descriptors() ([]Descriptor, error) {
	index, err := manifest.ReadIndex(l.index)
	return index.Entries, err
}

// Page returns an index of at most so many bytes, but of at least one entry. It
// lists those that follow the digest after, whether or not that is in the list
// itself, and that are of any of the artifact types (W53), or all if no type is
// given. Empty types are ignored, because they could not match anything. The
// next page begins after the digest last; it is empty if this is the last page.
//
// The list has to be sorted by digest, as [Merge] does. The order depends only
// on the content. So it is the same after a restart, and a page that begins
// after a digest begins at the same place when the list has grown.
func (l List) Page(after Digest, types []string, most int) (index []byte, last Digest) {
	wanted := l.numbersOf(types)
	if after == "" && wanted == nil && (len(l.index) <= most || l.Len() <= 1) {
		return l.index, ""
	}
	first := 0
	if after != "" {
		first = sort.Search(l.Len(), func(i int) bool { return cmp.Compare(l.digest(i), after) > 0 })
	}
	index = append(make([]byte, 0, l.pageSize(first, wanted, most)), indexHead...)
	before := -1 // the last entry on the page so far
	for i := first; i < l.Len(); i++ {
		if wanted != nil && !wanted[l.number(i)] {
			continue
		}
		entry := l.entry(i)
		if before >= 0 {
			if len(index)+len(",")+len(entry)+len(indexTail) > most {
				last = l.digest(before)
				break
			}
			index = append(index, ',')
		}
		index, before = append(index, entry...), i
	}
	return append(index, indexTail...), last
}

// pageSize is at least the size in bytes of a page, unless its only entry is
// larger than a page may be.
func (l List) pageSize(first int, wanted []bool, most int) int {
	size := len(indexHead) + len(indexTail)
	for i := first; i < l.Len() && size < most; i++ {
		if wanted == nil || wanted[l.number(i)] {
			size += len(l.entry(i)) + len(",")
		}
	}
	return min(size, most)
}

// Lists says whether it lists anything of any of the artifact types, or anything
// at all if no type is given.
func (l List) Lists(types []string) bool {
	wanted := l.numbersOf(types)
	return wanted == nil && l.Len() > 0 || slices.Contains(wanted, true)
}

// numbersOf says which of the types are wanted, by their numbers; nil if all
// are.
func (l List) numbersOf(types []string) []bool {
	if !slices.ContainsFunc(types, func(t string) bool { return t != "" }) {
		return nil
	}
	wanted := []bool{}
	for t := range l.eachType {
		wanted = append(wanted, len(t) > 0 && slices.ContainsFunc(types, func(one string) bool { return one == string(t) }))
	}
	return wanted
}

func (l List) end(i int) int { return int(binary.BigEndian.Uint32(l.table[i*listEntry:])) }

func (l List) number(i int) int {
	return int(binary.BigEndian.Uint32(l.table[i*listEntry+listNumber:]))
}

func (l List) entry(i int) []byte {
	begin := len(indexHead)
	if i > 0 {
		begin = l.end(i-1) + len(",")
	}
	return l.index[begin:l.end(i)]
}

func (l List) digest(i int) Digest {
	d, _ := manifest.ReadDescriptor(l.entry(i))
	return d.Digest
}
