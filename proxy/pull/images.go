package pull

import (
	"cmp"
	"slices"
)

// image is what is kept or evicted as one: a manifest that no index here
// names, with its children, its referrers, and the blobs they name.
type image struct {
	root *keptNode
	use  int64
}

// keptNode is a manifest that is kept for a repository.
type keptNode struct {
	repo      Repository
	digest    Digest
	rec       manifestRecord
	use       int64
	tags      []string
	parents   int // indexes and subjects that keep it here
	children  []*keptNode
	referrers []*keptNode
	gone      bool
}

func (n *keptNode) key() string { return recordKey(n.repo, n.digest.String()) }

// warehouse is a picture of everything that is kept, taken at one moment.
type warehouse struct {
	nodes map[string]*keptNode
	sizes map[Digest]int64 // of what lies on disk, in bytes
	refs  map[Digest]int   // manifests that need it: naming it, or being it
	held  map[string]int   // the same by repository and digest
	total int64
}

func (w *warehouse) need(n *keptNode, by int) {
	w.refs[n.digest] += by
	for _, b := range n.rec.Blobs {
		w.refs[b.Digest] += by
		w.held[recordKey(n.repo, b.Digest.String())] += by
	}
}

// link makes parents of those who keep others: an index its children, a
// subject its referrers, whether a manifest or a referrers tag names it.
func (w *warehouse) link(subjectOfTag func(string) (Digest, bool)) {
	for _, n := range w.nodes {
		w.need(n, 1)
		for _, c := range n.rec.Children {
			if child := w.nodes[recordKey(n.repo, c.Digest.String())]; child != nil && child != n {
				child.parents++
				n.children = append(n.children, child)
			}
		}
	}
	for _, n := range w.nodes {
		subjects := []Digest{n.rec.Subject}
		for _, tag := range n.tags {
			if subject, ok := subjectOfTag(tag); ok {
				subjects = append(subjects, subject)
			}
		}
		for _, s := range subjects {
			if subject := w.nodes[recordKey(n.repo, s.String())]; s != "" && subject != nil && subject != n {
				n.parents++
				subject.referrers = append(subject.referrers, n)
			}
		}
	}
}

// images are the roots, least recently used first. A manifest in a circle of
// subjects is a root where nothing else would reach it.
func (w *warehouse) images() []image {
	reached := make(map[*keptNode]bool)
	var roots []*keptNode
	for _, n := range w.nodes {
		if n.parents == 0 {
			roots = append(roots, n)
			n.reach(reached)
		}
	}
	for _, n := range w.nodes {
		if !reached[n] {
			roots = append(roots, n)
			n.reach(reached)
		}
	}
	all := make([]image, 0, len(roots))
	for _, n := range roots {
		all = append(all, image{root: n, use: n.lastUse()})
	}
	slices.SortFunc(all, func(a, b image) int {
		return cmp.Or(cmp.Compare(a.use, b.use), cmp.Compare(a.root.key(), b.root.key()))
	})
	return all
}

func (n *keptNode) reach(seen map[*keptNode]bool) {
	if seen[n] {
		return
	}
	seen[n] = true
	for _, next := range n.children {
		next.reach(seen)
	}
	for _, next := range n.referrers {
		next.reach(seen)
	}
}

// lastUse of an image is its own, or that of a child that is nobody else's.
func (n *keptNode) lastUse() int64 {
	use := n.use
	for _, c := range n.children {
		if c.parents == 1 {
			use = max(use, c.use)
		}
	}
	return use
}

// remove takes a root out of the picture, with everything that only it kept,
// and returns the manifests that go.
func (w *warehouse) remove(root *keptNode) []*keptNode {
	var gone []*keptNode
	queue := []*keptNode{root}
	for len(queue) > 0 {
		n := queue[0]
		queue = queue[1:]
		if n.gone {
			continue
		}
		n.gone = true
		gone = append(gone, n)
		w.need(n, -1)
		for _, next := range append(slices.Clone(n.children), n.referrers...) {
			if next.parents--; next.parents <= 0 {
				queue = append(queue, next)
			}
		}
	}
	return gone
}

func sortByUse(strays []stray) {
	slices.SortFunc(strays, func(a, b stray) int {
		return cmp.Or(cmp.Compare(a.use, b.use), cmp.Compare(a.digest, b.digest))
	})
}
