package retention

import "slices"

// reachableFromPins are the pinned manifests with their children and referrers.
func (s *snapshot) reachableFromPins() map[*node]bool {
	needed := make(map[*node]bool)
	for _, n := range s.nodes {
		if n.pinned {
			n.collect(needed)
		}
	}
	return needed
}

// pinnedContent returns the manifests that pinned images consist of, and their
// blobs, each with a pinned manifest that it belongs to.
func (s *snapshot) pinnedContent() map[Digest]*node {
	needed := make(map[Digest]*node)
	pinned := s.reachableFromPins()
	for _, n := range s.sorted() {
		if !pinned[n] {
			continue
		}
		for _, d := range append(slices.Clone(n.blobs), n.digest) {
			if needed[d] == nil {
				needed[d] = n
			}
		}
	}
	return needed
}
