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

// Filter returns the descriptors with any of the artifact types (W53), in the
// order of list, or all of them if no type is given. Empty types are ignored,
// because they could not match anything.
func Filter(list []Descriptor, artifactTypes []string) []Descriptor {
	types := slices.DeleteFunc(slices.Clone(artifactTypes), func(t string) bool { return t == "" })
	if len(types) == 0 {
		return list
	}
	var out []Descriptor
	for _, d := range list {
		if slices.Contains(types, d.ArtifactType) {
			out = append(out, d)
		}
	}
	return out
}

// After returns the part of a merged list that follows the digest last, whether
// or not last is still in the list.
func After(list []Descriptor, last Digest) []Descriptor {
	at, found := slices.BinarySearchFunc(list, last, func(d Descriptor, last Digest) int { return cmp.Compare(d.Digest, last) })
	if found {
		at++
	}
	return list[at:]
}
