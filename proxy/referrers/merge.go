package referrers

import (
	"cmp"
	"slices"
)

// Merge returns one list of all descriptors, each digest once, sorted by
// digest. If a digest is in several lists, the descriptor of the earliest list
// is used: derived ones come before claimed ones.
//
// The order depends only on the content. So it is the same after a restart, and
// a page that begins after a digest begins at the same place when the list has
// grown.
func Merge(lists ...[]Descriptor) []Descriptor {
	var all []Descriptor
	seen := make(map[Digest]bool)
	for _, list := range lists {
		for _, d := range list {
			if !seen[d.Digest] {
				seen[d.Digest] = true
				all = append(all, d)
			}
		}
	}
	slices.SortFunc(all, func(a, b Descriptor) int { return cmp.Compare(a.Digest, b.Digest) })
	return all
}
