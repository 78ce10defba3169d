package retention

import (
	"context"
	"slices"
	"strings"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/proxy/store"
)

// node is a manifest that is cached for a repository.
type node struct {
	repo   Repository
	digest Digest
	rec    metadata.Manifest
	blobs  []Digest           // that it references; of a wide manifest, those that are here
	names  *referrers.NameSet // all that a wide manifest references
	tags   []string
	tagged bool // by a tag that is not a referrers tag
	pinned bool
	links
	gone bool
}

// links are a manifest's connections in the graph.
type links struct {
	parents   int  // number of indexes and subjects that reference it
	platform  bool // at least one parent is an index
	children  []*node
	referrers []*node
}

func (n *node) key() string { return metadata.Key(n.repo, n.digest.String()) }

// hasParents says whether an index or a subject references it.
func (n *node) hasParents() bool { return n.parents > 0 }

// collect adds a manifest and all its descendants to seen. Indexes may be
// nested to any depth, so it is not recursive.
func (n *node) collect(seen map[*node]bool) {
	for queue := []*node{n}; len(queue) > 0; queue = queue[1:] {
		if next := queue[0]; !seen[next] {
			seen[next] = true
			queue = append(append(queue, next.children...), next.referrers...)
		}
	}
}

// snapshot is the content of the cache at one moment. The watch records what
// happens later.
type snapshot struct {
	nodes      map[string]*node
	sizes      map[Digest]int64 // of content on disk, in bytes
	drafts     map[Digest]draft
	references references
	ledger     *metadata.Ledger
	watch      *metadata.Watch
	total      int64 // bytes of content and drafts
}

// references count why content has to stay.
type references struct {
	content map[Digest]int // manifests that reference it or are it
	members map[string]int // the same, by repository and digest
	marks   map[string]int // indexes that attach it: by repository, subject and attestation, and by repository and attestation
}

func newSnapshot(of *metadata.Ledger) *snapshot {
	return &snapshot{
		nodes: map[string]*node{}, sizes: map[Digest]int64{}, ledger: of,
		references: references{content: map[Digest]int{}, members: map[string]int{}, marks: map[string]int{}},
	}
}

// snapshot takes a snapshot. The caller holds sweeping, and ends the watch.
func (r *Retention) snapshot(ctx context.Context) (*snapshot, error) {
	s := newSnapshot(r.ledger)
	s.watch = r.ledger.Watch()
	r.ledger.SaveUses()
	if err := s.read(ctx, r.store); err != nil {
		s.watch.End()
		return nil, err
	}
	s.readWide(ctx, r.store)
	s.link()
	return s, nil
}

// readWide finds out which of the content that is here wide manifests reference.
// What else they do makes no difference.
func (s *snapshot) readWide(ctx context.Context, from *store.Store) {
	for _, n := range s.nodes {
		if n.blobs = digestsOf(n.rec.Blobs); !n.rec.Wide {
			continue
		}
		names, ok := from.Names(ctx, n.rec.MediaType, n.digest)
		if !ok {
			continue // without its content it is of no use
		}
		n.names, n.blobs = names, nil
		for d := range s.sizes {
			if names.Has(d) {
				n.blobs = append(n.blobs, d)
			}
		}
		for d := range s.drafts {
			if _, here := s.sizes[d]; !here && names.Has(d) {
				n.blobs = append(n.blobs, d)
			}
		}
	}
}

// childrenOf are the nodes that an index lists.
func (s *snapshot) childrenOf(n *node) (all []*node) {
	if n.names == nil {
		for _, c := range n.rec.Children {
			if child := s.nodes[metadata.Key(n.repo, c.Digest.String())]; child != nil {
				all = append(all, child)
			}
		}
		return all
	}
	for _, other := range s.nodes {
		if other.repo == n.repo && n.names.Has(other.digest) {
			all = append(all, other)
		}
	}
	return all
}

func (s *snapshot) read(ctx context.Context, from *store.Store) error {
	err := from.Count(ctx, func(d Digest, size int64) {
		s.sizes[d] = size
		s.total += from.Weight(size)
	})
	if err != nil {
		return err
	}
	s.drafts = draftsIn(from)
	for _, d := range s.drafts {
		s.total += d.Weight
	}
	err = s.ledger.EachManifest(func(repo Repository, d Digest, rec metadata.Manifest) {
		n := &node{repo: repo, digest: d, rec: rec}
		s.nodes[n.key()] = n
	})
	if err != nil {
		return err
	}
	err = s.ledger.EachTag(func(repo Repository, tag string, d Digest) {
		if n := s.nodes[metadata.Key(repo, d.String())]; n != nil {
			n.tags = append(n.tags, tag)
		}
	})
	for _, n := range s.nodes {
		n.pinned = s.isPinned(n)
	}
	return err
}

// isPinned says whether a manifest is pinned now, by a tag or by digest.
func (s *snapshot) isPinned(n *node) bool {
	return slices.ContainsFunc(append(slices.Clone(n.tags), n.digest.String()), func(ref string) bool { return s.ledger.IsPinned(n.repo, ref) })
}

// link connects the nodes: an index with its children, and a subject with its
// referrers, which name it in their subject field or are found under its
// referrers tag.
func (s *snapshot) link() {
	for _, n := range s.nodes {
		s.references.add(n, 1)
		for _, child := range s.childrenOf(n) {
			if child != n {
				child.parents++
				child.platform = true
				n.children = append(n.children, child)
			}
		}
	}
	for _, n := range s.nodes {
		subjects := []Digest{n.rec.Subject}
		for _, tag := range n.tags {
			stem, _, _ := strings.Cut(tag, ".") // cosign's tags have a suffix
			if subject, ok := referrers.SubjectOf(stem); ok {
				subjects = append(subjects, subject)
			} else {
				n.tagged = true
			}
		}
		for _, d := range subjects {
			if subject := s.nodes[metadata.Key(n.repo, d.String())]; d != "" && subject != nil && subject != n {
				n.parents++
				subject.referrers = append(subject.referrers, n)
			}
		}
	}
}

// add adds by to the counts of everything that a manifest references.
func (all references) add(n *node, by int) {
	all.content[n.digest] += by
	for _, d := range n.blobs {
		all.content[d] += by
		all.members[metadata.Key(n.repo, d.String())] += by
	}
	for _, a := range referrers.AttestationsAmong(n.rec.Children) {
		all.marks[metadata.Key(n.repo, a.Entry.Digest.String())] += by
		all.marks[metadata.AttachedKey(n.repo, a.Subject, a.Entry.Digest)] += by
	}
}

// sorted returns the manifests sorted by name.
func (s *snapshot) sorted() []*node {
	var all []*node
	for _, n := range s.nodes {
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b *node) int { return strings.Compare(a.key(), b.key()) })
	return all
}
