package pull

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/referrers"
)

// image is what is kept or removed as one: a manifest that nothing here keeps,
// with its children, what hangs on it, and the blobs they name.
type image struct {
	root *keptNode
	use  int64
}

// keptNode is a manifest that is kept for a repository.
type keptNode struct {
	repo      Repository
	digest    Digest
	rec       metadata.Manifest
	use       int64
	tags      []string
	named     bool // by a tag of its own, which is no referrers tag
	pinned    bool
	parents   int  // indexes and subjects that keep it here
	platform  bool // one of the parents is an index
	children  []*keptNode
	referrers []*keptNode
	gone      bool
}

func (n *keptNode) key() string { return metadata.Key(n.repo, n.digest.String()) }

// kept says that an index or a subject needs it.
func (n *keptNode) kept() bool { return n.parents > 0 }

// warehouse is a picture of everything that is kept, taken at one moment.
type warehouse struct {
	nodes map[string]*keptNode
	sizes map[Digest]int64 // of what lies on disk, in bytes
	refs  map[Digest]int   // manifests that need it: naming it, or being it
	held  map[string]int   // the same by repository and digest
	marks map[string]int   // indexes that attach, by repository, subject and attestation, and by repository and attestation
	meta  *metadata.Ledger
	watch *metadata.Watch
	total int64
}

// picture reads everything that is kept, and lets manifests that come
// meanwhile save what they name, until done is called. The caller holds
// sweeping.
func (p *Puller) picture(ctx context.Context) (_ *warehouse, done func(), err error) {
	w := &warehouse{nodes: map[string]*keptNode{}, sizes: map[Digest]int64{}, refs: map[Digest]int{}, held: map[string]int{}, marks: map[string]int{}, meta: p.meta}
	w.watch = p.meta.Watch()
	defer func() {
		if err != nil {
			w.watch.End()
		}
	}()
	p.meta.SaveUses()
	err = p.evictor.count(func(see func(Digest, int64)) error {
		return p.opts.Blobs.Walk(ctx, func(d Digest, size int64) bool {
			see(d, size)
			w.sizes[d] = size
			w.total += p.opts.Blobs.Weight(size)
			return true
		})
	})
	if err == nil {
		err = p.readNodes(w)
	}
	if err != nil {
		return nil, nil, err
	}
	for _, n := range w.nodes {
		n.use = p.meta.ManifestUse(n.repo, n.digest)
		n.pinned = p.pinned(n)
	}
	w.link()
	return w, w.watch.End, nil
}

func (p *Puller) readNodes(w *warehouse) error {
	err := p.meta.EachManifest(func(repo Repository, d Digest, rec metadata.Manifest) {
		w.nodes[metadata.Key(repo, d.String())] = &keptNode{repo: repo, digest: d, rec: rec}
	})
	if err != nil {
		return err
	}
	return p.meta.EachTag(func(repo Repository, tag string, d Digest) {
		if n := w.nodes[metadata.Key(repo, d.String())]; n != nil {
			n.tags = append(n.tags, tag)
		}
	})
}

func (w *warehouse) need(n *keptNode, by int) {
	w.refs[n.digest] += by
	for _, b := range n.rec.Blobs {
		w.refs[b.Digest] += by
		w.held[metadata.Key(n.repo, b.Digest.String())] += by
	}
	for _, a := range referrers.AttestationsAmong(n.rec.Children) {
		w.marks[metadata.Key(n.repo, a.Entry.Digest.String())] += by
		w.marks[metadata.AttachedKey(n.repo, a.Subject, a.Entry.Digest)] += by
	}
}

// link makes parents of those who keep others: an index of its children, a
// subject of what refers to it, whether by its own word or by a tag's.
func (w *warehouse) link() {
	for _, n := range w.nodes {
		w.need(n, 1)
		for _, c := range n.rec.Children {
			if child := w.nodes[metadata.Key(n.repo, c.Digest.String())]; child != nil && child != n {
				child.parents++
				child.platform = true
				n.children = append(n.children, child)
			}
		}
	}
	for _, n := range w.nodes {
		subjects := []Digest{n.rec.Subject}
		for _, tag := range n.tags {
			stem, _, _ := strings.Cut(tag, ".") // cosign's have an ending
			if subject, ok := referrers.SubjectOf(stem); ok {
				subjects = append(subjects, subject)
			} else {
				n.named = true
			}
		}
		for _, s := range subjects {
			if subject := w.nodes[metadata.Key(n.repo, s.String())]; s != "" && subject != nil && subject != n {
				n.parents++
				subject.referrers = append(subject.referrers, n)
			}
		}
	}
}

// images are the roots, least recently used first: whatever nothing keeps, and
// whatever has a name or a pin of its own. A manifest in a circle of subjects
// is a root where nothing else would reach it.
func (w *warehouse) images() []image {
	reached := make(map[*keptNode]bool)
	var all []image
	root := func(n *keptNode) {
		all = append(all, image{root: n, use: w.lastUse(n)})
		n.reach(reached)
	}
	for _, n := range w.nodes {
		if !n.kept() || n.named || n.pinned {
			root(n)
		}
	}
	for _, n := range w.nodes {
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

// reach notes everything that goes with a manifest. Indexes may be nested as
// deep as anyone likes, so nothing here calls itself.
func (n *keptNode) reach(seen map[*keptNode]bool) {
	for queue := []*keptNode{n}; len(queue) > 0; queue = queue[1:] {
		if next := queue[0]; !seen[next] {
			seen[next] = true
			queue = append(append(queue, next.children...), next.referrers...)
		}
	}
}

// lastUse of an image is its own, or that of a child or blob, however deep,
// that is nobody else's: a runtime that loads lazily asks for blobs long after
// the manifest.
func (w *warehouse) lastUse(root *keptNode) (use int64) {
	seen := make(map[*keptNode]bool)
	for queue := []*keptNode{root}; len(queue) > 0; queue = queue[1:] {
		n := queue[0]
		if seen[n] {
			continue
		}
		seen[n] = true
		use = max(use, w.ownUse(n))
		for _, c := range n.children {
			if c.parents == 1 {
				queue = append(queue, c)
			}
		}
	}
	return use
}

func (w *warehouse) ownUse(n *keptNode) int64 {
	use := w.meta.ManifestUse(n.repo, n.digest)
	for _, b := range n.rec.Blobs {
		if w.refs[b.Digest] == 1 {
			use = max(use, w.meta.BlobUse(b.Digest))
		}
	}
	return use
}

// cut is what goes with an image: manifests, from the root on, and the content
// that nothing else needs, themselves included, and before their blobs.
type cut struct {
	manifests []*keptNode
	content   []Digest
}

// bytes is how much a cut frees.
func (w *warehouse) bytes(c cut) (n int64) {
	for _, d := range c.content {
		n += w.sizes[d]
	}
	return n
}

// cut takes a root out of the picture, with everything that only it kept.
func (w *warehouse) cut(root *keptNode) cut {
	var c cut
	for queue := []*keptNode{root}; len(queue) > 0; queue = queue[1:] {
		n := queue[0]
		if n.gone {
			continue
		}
		n.gone = true
		c.manifests = append(c.manifests, n)
		w.need(n, -1)
		for _, next := range slices.Concat(n.children, n.referrers) {
			if next.parents--; next.parents <= 0 && !next.named && !next.pinned {
				queue = append(queue, next)
			}
		}
	}
	c.content = w.freed(c.manifests)
	return c
}

// freed is what nothing else needs of manifests that are cut out: themselves
// in their order, then their blobs.
func (w *warehouse) freed(manifests []*keptNode) (content []Digest) {
	var all []Digest
	for _, n := range manifests {
		all = append(all, n.digest)
	}
	for _, n := range manifests {
		all = append(all, digestsOf(n.rec.Blobs)...)
	}
	seen := map[Digest]bool{}
	for _, d := range all {
		if _, here := w.sizes[d]; here && w.refs[d] == 0 && !seen[d] {
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

// stray is a blob that no manifest here names.
type stray struct {
	digest Digest
	use    int64
}

// strays are sorted, least recently used first.
func (w *warehouse) strays() []stray {
	var all []stray
	for d := range w.sizes {
		if w.refs[d] == 0 {
			all = append(all, stray{d, w.meta.BlobUse(d)})
		}
	}
	slices.SortFunc(all, func(a, b stray) int {
		return cmp.Or(cmp.Compare(a.use, b.use), cmp.Compare(a.digest, b.digest))
	})
	return all
}
