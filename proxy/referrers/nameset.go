package referrers

import (
	"cmp"
	"encoding/json"
	"hash/maphash"
	"slices"
)

// NameSet are the digests of all that a manifest references, with their sizes,
// in 16 bytes each: a manifest of a few megabytes may reference a hundred
// thousand blobs, and its descriptors would take thirty times as much.
//
// Digests are told apart by 64 bits of a hash with a seed of this process, so
// that nobody can make a digest that is taken for another one.
type NameSet struct{ names []nameHash }

// nameHash is a digest with its size: -1 if none is given, notVerified for what a
// registry does not check to exist.
type nameHash struct {
	hash uint64
	size int64
}

// notVerified is the size of a layer with URLs, and of an entry of an index: it
// need not be there, and need not be a manifest.
const notVerified = -2

// There is one seed, so that any digest can be looked for in any set.
var nameSeed = maphash.MakeSeed()

func hashName(d Digest) uint64 { return maphash.String(nameSeed, string(d)) }

// ReadNameSet reads all that a manifest references. It returns what Names
// returns for a manifest that it can't read.
func ReadNameSet(mediaType string, doc *Document) (*NameSet, error) {
	s := &NameSet{}
	n := named{each: s.add}
	if _, err := n.read(mediaType, doc); err != nil {
		return nil, err
	}
	slices.SortStableFunc(s.names, func(a, b nameHash) int { return cmp.Compare(a.hash, b.hash) })
	s.names = slices.Clip(slices.CompactFunc(s.names, func(a, b nameHash) bool { return a.hash == b.hash }))
	return s, nil
}

// add adds what an element of a list names.
func (s *NameSet) add(raw json.RawMessage, isEntry bool) {
	fields, err := members(raw, "digest", "size", "urls", "blobSum")
	if err != nil {
		return
	}
	d, size := Digest(text(fields["digest"])), int64(-1)
	if d == "" {
		d = Digest(text(fields["blobSum"]))
	}
	if d == "" {
		return // what is no digest stays: nobody can ask for it
	}
	if json.Unmarshal(fields["size"], &size) != nil || size < 0 {
		size = -1
	}
	var urls []string
	if isEntry || json.Unmarshal(fields["urls"], &urls) == nil && len(urls) > 0 {
		size = notVerified
	}
	s.names = append(s.names, nameHash{hashName(d), size})
}

// Len is how many different digests there are.
func (s *NameSet) Len() int { return len(s.names) }

// Has says whether the manifest references a digest.
func (s *NameSet) Has(d Digest) bool {
	_, ok := s.find(d)
	return ok
}

// Member returns the size of a blob that the manifest references, or -1 if it
// gives none. It returns false for one that a registry does not check to exist.
func (s *NameSet) Member(d Digest) (size int64, ok bool) {
	size, ok = s.find(d)
	return size, ok && size != notVerified
}

func (s *NameSet) find(d Digest) (size int64, ok bool) {
	at, ok := slices.BinarySearchFunc(s.names, hashName(d), func(n nameHash, hash uint64) int { return cmp.Compare(n.hash, hash) })
	if !ok {
		return 0, false
	}
	return s.names[at].size, true
}
