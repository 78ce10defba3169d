package retention

import (
	"context"
	"slices"
	"strings"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/proxy/store"
)

// node is a manifest that is kept for a repository.
type node struct {
	repo   Repository
	digest Digest
	rec    metadata.Manifest
	tags   []string
	tagged bool // by a tag of its own, which is no referrers tag
	pinned bool
	links
	gone bool
}

// family is how a manifest hangs together with others.
type links struct {
	parents   int  // indexes and subjects that keep it
	platform  bool // one of the parents is an index
	children  []*node
	referrers []*node
}

func (n *node) key() string { return metadata.Key(n.repo, n.digest.String()) }

// needed says that an index or a subject keeps it.
func (n *node) hasParents() bool { return n.parents > 0 }

// reach notes everything that goes with a manifest. Indexes may be nested as
// deep as anyone likes, so nothing here calls itself.
func (n *node) collect(seen map[*node]bool) {
	for queue := []*node{n}; len(queue) > 0; queue = queue[1:] {
		if next := queue[0]; !seen[next] {
			seen[next] = true
			queue = append(append(queue, next.children...), next.referrers...)
		}
	}
}

// snapshot is everything that is kept, as it was at one moment. What comes
// later is seen by the watch.
type snapshot struct {
	nodes      map[string]*node
	sizes      map[Digest]int64 // of what lies on disk, in bytes
	references references
	ledger     *metadata.Ledger
	watch      *metadata.Watch
	total      int64
}

// needs count why something has to stay.
type references struct {
	content map[Digest]int // manifests that name it, or are it
	members map[string]int // the same by repository and digest
	marks   map[string]int // indexes that attach: by repository, subject and attestation, and by repository and attestation
}

// snapshot reads everything that is kept. The caller holds sweeping, and ends
// the watch.
func (r *Retention) snapshot(ctx context.Context) (*snapshot, error) {
	s := &snapshot{
		nodes: map[string]*node{}, sizes: map[Digest]int64{}, ledger: r.ledger, watch: r.ledger.Watch(),
		references: references{content: map[Digest]int{}, members: map[string]int{}, marks: map[string]int{}},
	}
	r.ledger.SaveUses()
	if err := s.read(ctx, r.store); err != nil {
		s.watch.End()
		return nil, err
	}
	s.link()
	return s, nil
}

func (s *snapshot) read(ctx context.Context, from *store.Store) error {
	err := from.Count(ctx, func(d Digest, size int64) {
		s.sizes[d] = size
		s.total += from.Weight(size)
	})
	if err != nil {
		return err
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

// isPinned says whether a manifest is pinned now, by a tag or by its digest.
func (s *snapshot) isPinned(n *node) bool {
	return slices.ContainsFunc(append(slices.Clone(n.tags), n.digest.String()), func(ref string) bool { return s.ledger.IsPinned(n.repo, ref) })
}

// link notes who keeps whom: an index its children, a subject what refers to
// it, whether by its own word or by a tag's.
func (s *snapshot) link() {
	for _, n := range s.nodes {
		s.references.add(n, 1)
		for _, c := range n.rec.Children {
			if child := s.nodes[metadata.Key(n.repo, c.Digest.String())]; child != nil && child != n {
				child.parents++
				child.platform = true
				n.children = append(n.children, child)
			}
		}
	}
	for _, n := range s.nodes {
		subjects := []Digest{n.rec.Subject}
		for _, tag := range n.tags {
			stem, _, _ := strings.Cut(tag, ".") // cosign's have an ending
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

// add counts what a manifest needs once more, or once less.
func (all references) add(n *node, by int) {
	all.content[n.digest] += by
	for _, b := range n.rec.Blobs {
		all.content[b.Digest] += by
		all.members[metadata.Key(n.repo, b.Digest.String())] += by
	}
	for _, a := range referrers.AttestationsAmong(n.rec.Children) {
		all.marks[metadata.Key(n.repo, a.Entry.Digest.String())] += by
		all.marks[metadata.AttachedKey(n.repo, a.Subject, a.Entry.Digest)] += by
	}
}

// sorted are the manifests in the order of their names.
func (s *snapshot) sorted() []*node {
	var all []*node
	for _, n := range s.nodes {
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b *node) int { return strings.Compare(a.key(), b.key()) })
	return all
}
