package pull

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

var (
	// ErrPinned says that an image is not purged because it is pinned.
	ErrPinned = errors.New("it is pinned")
	// ErrNotKept says that nothing is kept of what was named.
	ErrNotKept = errors.New("nothing is kept of it")
)

// Target is what a purge is about: one tag, one digest in a repository, a
// whole repository where Ref is empty, or a digest wherever it is kept where
// the Repository is empty.
type Target Reference

// Purged says what a purge took away, or would take away.
type Purged struct {
	Tags      []string `json:"tags"`      // that are forgotten, with their repositories
	Manifests []string `json:"manifests"` // the same of manifests
	Blobs     int      `json:"blobs"`     // files that went, manifests included
	Bytes     int64    `json:"bytes"`
}

// Purge forgets what target means. Of one tag of an image that has others, only
// the tag goes. With dryRun nothing goes. It returns ErrNotKept where
// nothing is kept that target could mean.
func (p *Puller) Purge(ctx context.Context, target Target, dryRun bool) (Purged, error) {
	p.evictor.sweeping.Lock()
	defer p.evictor.sweeping.Unlock()
	w, done, err := p.picture(ctx)
	if err != nil {
		return Purged{}, err
	}
	defer done()
	_, wantsDigest := digest.Parse(target.Ref)
	byDigest := target.Ref != "" && wantsDigest == nil
	byTag := target.Ref != "" && !byDigest
	needed := w.neededByPins()

	result := Purged{Tags: []string{}, Manifests: []string{}}
	var roots []*keptNode
	for _, n := range w.sorted() {
		switch {
		case target.Repository != (Repository{}) && n.repo != target.Repository:
		case byDigest && n.digest != Digest(target.Ref):
		case byTag && !slices.Contains(n.tags, target.Ref):
		case byTag && n.onlyItsTagGoes() && p.meta.IsPinned(n.repo, target.Ref), !(byTag && n.onlyItsTagGoes()) && needed[n]:
			return Purged{}, fmt.Errorf("%s: %w: unpin it first", Reference{Repository: n.repo, Ref: n.digest.String()}, ErrPinned)
		case byTag && n.onlyItsTagGoes():
			result.Tags = append(result.Tags, Reference{Repository: n.repo, Ref: target.Ref}.String())
			if !dryRun {
				p.meta.DropTag(n.repo, target.Ref)
			}
		default:
			roots = append(roots, n)
		}
	}
	var all cut
	var members, strays []Digest
	if target.Ref == "" {
		// Blobs that were asked for by themselves belong to the repository too.
		members = p.meta.MembersOf(target.Repository)
		for _, d := range members {
			if _, here := w.sizes[d]; here && w.refs[d] == 0 {
				strays = append(strays, d)
			}
		}
	}
	for _, n := range roots {
		if n.gone {
			continue
		}
		n.parents = 0
		all.manifests = append(all.manifests, w.cut(n).manifests...)
	}
	all.content = append(w.freed(parentsFirst(all.manifests)), strays...)
	for _, n := range all.manifests {
		result.Manifests = append(result.Manifests, Reference{Repository: n.repo, Ref: n.digest.String()}.String())
		for _, tag := range n.tags {
			result.Tags = append(result.Tags, Reference{Repository: n.repo, Ref: tag}.String())
		}
	}
	if _, here := w.sizes[Digest(target.Ref)]; byDigest && here && !slices.Contains(all.content, Digest(target.Ref)) {
		// A blob, or a manifest that another repository needs as well: who
		// names a digest wants its bytes fetched again.
		if target.Repository == (Repository{}) {
			for _, n := range w.sorted() {
				if needed[n] && n.names(Digest(target.Ref)) {
					return Purged{}, fmt.Errorf("%s of %s: %w: unpin it first", target.Ref, Reference{Repository: n.repo, Ref: n.digest.String()}, ErrPinned)
				}
			}
			all.content = append(all.content, Digest(target.Ref))
		}
	}
	if len(result.Tags)+len(result.Manifests)+len(all.content)+len(members) == 0 {
		return Purged{}, fmt.Errorf("%s: %w", strings.Trim(Reference(target).String(), "/:@"), ErrNotKept)
	}
	slices.Sort(result.Tags)
	slices.Sort(result.Manifests)
	result.Blobs, result.Bytes = len(all.content), w.bytes(all)
	if dryRun {
		return result, nil
	}
	if target.Ref == "" {
		p.meta.DropRepository(target.Repository)
	}
	result.Bytes, err = p.remove(ctx, w, all)
	return result, err
}

// onlyItsTagGoes says that a manifest stays when one of its tags is purged:
// under another tag, or in an index.
func (n *keptNode) onlyItsTagGoes() bool { return len(n.tags) > 1 || n.platform }

// names says whether d is a blob of the manifest.
func (n *keptNode) names(d Digest) bool {
	return slices.ContainsFunc(n.rec.Blobs, func(b Descriptor) bool { return b.Digest == d })
}

// neededByPins are the pinned manifests with everything that makes them whole.
func (w *warehouse) neededByPins() map[*keptNode]bool {
	needed := make(map[*keptNode]bool)
	for _, n := range w.nodes {
		if n.pinned {
			n.reach(needed)
		}
	}
	return needed
}

// parentsFirst orders manifests so that none comes before what keeps it.
func parentsFirst(manifests []*keptNode) []*keptNode {
	wanted, seen := make(map[*keptNode]bool), make(map[*keptNode]bool)
	for _, n := range manifests {
		wanted[n] = true
	}
	var order []*keptNode
	var visit func(n *keptNode)
	visit = func(n *keptNode) {
		if seen[n] || !wanted[n] {
			return
		}
		seen[n] = true
		for _, next := range slices.Concat(n.children, n.referrers) {
			visit(next)
		}
		order = append(order, n)
	}
	for _, n := range manifests {
		visit(n)
	}
	slices.Reverse(order)
	return order
}

// sorted are the manifests in the order of their names.
func (w *warehouse) sorted() []*keptNode {
	var all []*keptNode
	for _, n := range w.nodes {
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b *keptNode) int { return strings.Compare(a.key(), b.key()) })
	return all
}
