package retention

import (
	"context"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/metadata"
)

// Exported for the tests in package retention_test.
const CheckInterval = checkInterval

// Evict is a pass of eviction.
func (r *Retention) Evict(ctx context.Context, want int64) (int64, error) {
	before := r.store.State().Removed
	return r.evict(ctx, func(bytes, _ int64) bool { return r.store.State().Removed-before+bytes < want })
}

// View is the content of a snapshot.
type View struct {
	Total        int64
	Sizes        map[Digest]int64
	Nodes        map[string]*Node
	Roots        []Root
	Unreferenced int // blobs
	Drafts       int // that no pinned image needs
}

// Root is the root of an image.
type Root struct {
	*Node
	Own, Use int64 // the last use of the manifest, and of the image
}

type Node struct{ n *node }

func (n *Node) Key() string            { return n.n.key() }
func (n *Node) Digest() Digest         { return n.n.digest }
func (n *Node) Rec() metadata.Manifest { return n.n.rec }
func (n *Node) Repo() Repository       { return n.n.repo }
func (n *Node) HasParents() bool       { return n.n.hasParents() }
func (n *Node) Tagged() bool           { return n.n.tagged }
func (n *Node) Pinned() bool           { return n.n.pinned }

// All returns the manifest and its descendants.
func (n *Node) All() (all []*Node) {
	seen := map[*node]bool{}
	n.n.collect(seen)
	for n := range seen {
		all = append(all, &Node{n})
	}
	return all
}

// Look takes a snapshot.
func (r *Retention) Look(ctx context.Context) (View, error) {
	r.sweeping.Lock()
	defer r.sweeping.Unlock()
	s, err := r.snapshot(ctx)
	if err != nil {
		return View{}, err
	}
	defer s.watch.End()
	v := View{Total: s.total, Sizes: s.sizes, Nodes: map[string]*Node{}, Unreferenced: len(s.unreferencedBlobs()), Drafts: len(s.unpinnedDrafts())}
	for key, n := range s.nodes {
		v.Nodes[key] = &Node{n}
	}
	for _, image := range s.images() {
		v.Roots = append(v.Roots, Root{&Node{image.root}, s.ledger.ManifestUse(image.root.repo, image.root.digest), image.use})
	}
	return v, nil
}

// DraftUse is the last use of a draft that was kept at a time.
func DraftUse(keptAt time.Time) int64 {
	return draft{KeptDraft: cache.KeptDraft{KeptAt: keptAt}}.lastUse()
}
