package retention

import (
	"cmp"
	"slices"
)

// image is the unit of eviction: a manifest that nothing else references, with
// its children, its referrers, and the blobs of all of these.
type image struct {
	root *node
	use  int64 // last use, in Unix nanoseconds
}

// images are the roots, least recently used first: manifests that nothing
// references, and manifests that are tagged or pinned themselves. If manifests
// form a cycle of subjects, one of them is made a root if it cannot be reached
// otherwise.
func (s *snapshot) images() []image {
	reached := make(map[*node]bool)
	var all []image
	root := func(n *node) {
		all = append(all, image{root: n, use: s.lastUse(n)})
		n.collect(reached)
	}
	for _, n := range s.nodes {
		if !n.hasParents() || n.tagged || n.pinned {
			root(n)
		}
	}
	for _, n := range s.nodes {
		if !reached[n] {
			n.parents = 0
			root(n)
		}
	}
	slices.SortFunc(all, func(a, b image) int {
		return cmp.Or(cmp.Compare(a.use, b.use), cmp.Compare(a.root.key(), b.root.key()))
	})
	return all
}

// lastUse is the last use of an image: that of its root, or of a descendant or
// blob that belongs to nothing else. A lazily loading runtime requests blobs
// long after the manifest.
func (s *snapshot) lastUse(root *node) (use int64) {
	seen := make(map[*node]bool)
	for queue := []*node{root}; len(queue) > 0; queue = queue[1:] {
		n := queue[0]
		if seen[n] {
			continue
		}
		seen[n] = true
		use = max(use, s.ownUse(n))
		for _, c := range n.children {
			if c.parents == 1 {
				queue = append(queue, c)
			}
		}
	}
	return use
}

func (s *snapshot) ownUse(n *node) int64 {
	use := s.ledger.ManifestUse(n.repo, n.digest)
	for _, d := range n.blobs {
		if s.references.content[d] == 1 {
			use = max(use, s.ledger.BlobUse(d))
		}
	}
	return use
}

// removal is what is removed together: manifests, starting with the root, and
// the content that nothing else references, manifests before their blobs. A
// purge removes drafts with them. Eviction does not: a draft has a use of its
// own.
type removal struct {
	manifests []*node
	blobs     []Digest
	drafts    []Digest
}

// bytes is how many bytes a removal frees.
func (s *snapshot) bytes(all removal) (n int64) {
	for _, d := range all.blobs {
		n += s.sizes[d]
	}
	for _, d := range all.drafts {
		n += s.drafts[d].Weight
	}
	return n
}

// detach removes a root from the snapshot, with everything that only it
// references.
func (s *snapshot) detach(root *node) removal {
	var all removal
	for queue := []*node{root}; len(queue) > 0; queue = queue[1:] {
		n := queue[0]
		if n.gone {
			continue
		}
		n.gone = true
		all.manifests = append(all.manifests, n)
		s.references.add(n, -1)
		for _, next := range slices.Concat(n.children, n.referrers) {
			if next.parents--; next.parents <= 0 && !next.tagged && !next.pinned {
				queue = append(queue, next)
			}
		}
	}
	all.blobs = s.orphanedContent(all.manifests)
	return all
}

// orphanedContent returns the content of detached manifests that nothing else
// references: the manifests in their order, then their blobs.
func (s *snapshot) orphanedContent(manifests []*node) (content []Digest) {
	var all []Digest
	for _, n := range manifests {
		all = append(all, n.digest)
	}
	for _, n := range manifests {
		all = append(all, n.blobs...)
	}
	seen := map[Digest]bool{}
	for _, d := range all {
		if _, here := s.sizes[d]; here && s.references.content[d] == 0 && !seen[d] {
			seen[d] = true
			content = append(content, d)
		}
	}
	return content
}

func digestsOf(all []Descriptor) []Digest {
	var digests []Digest
	for _, d := range all {
		digests = append(digests, d.Digest)
	}
	return digests
}

// unreferencedBlob is a blob that no cached manifest references.
type unreferencedBlob struct {
	digest Digest
	use    int64
}

// unreferencedBlobs returns these blobs, least recently used first.
func (s *snapshot) unreferencedBlobs() []unreferencedBlob {
	var all []unreferencedBlob
	for d := range s.sizes {
		if s.references.content[d] == 0 {
			all = append(all, unreferencedBlob{d, s.ledger.BlobUse(d)})
		}
	}
	slices.SortFunc(all, func(a, b unreferencedBlob) int {
		return cmp.Or(cmp.Compare(a.use, b.use), cmp.Compare(a.digest, b.digest))
	})
	return all
}
