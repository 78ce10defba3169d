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

	result := Purged{Tags: []string{}, Manifests: []string{}}
	var roots []*keptNode
	for _, n := range w.sorted() {
		switch {
		case target.Repository != (Repository{}) && n.repo != target.Repository:
		case byDigest && n.digest != Digest(target.Ref):
		case target.Ref != "" && !byDigest && !slices.Contains(n.tags, target.Ref):
		case p.pinnedFor(n, target.Ref, byDigest):
			return Purged{}, fmt.Errorf("%s: %w: unpin it first", Reference{n.repo, n.digest.String()}, ErrPinned)
		case target.Ref != "" && !byDigest && len(n.tags) > 1:
			result.Tags = append(result.Tags, Reference{n.repo, target.Ref}.String())
			if !dryRun {
				p.ledger.dropTag(n.repo, target.Ref)
			}
		default:
			roots = append(roots, n)
		}
	}
	var all cut
	for _, n := range roots {
		if n.gone {
			continue
		}
		n.parents = 0
		c := w.cut(n)
		all.manifests = append(all.manifests, c.manifests...)
		all.content = append(all.content, c.content...)
	}
	for _, n := range all.manifests {
		result.Manifests = append(result.Manifests, Reference{n.repo, n.digest.String()}.String())
		for _, tag := range n.tags {
			result.Tags = append(result.Tags, Reference{n.repo, tag}.String())
		}
	}
	if _, here := w.sizes[Digest(target.Ref)]; byDigest && here && !slices.Contains(all.content, Digest(target.Ref)) {
		// A blob, or a manifest that another repository needs as well: who
		// names a digest wants its bytes fetched again.
		if target.Repository == (Repository{}) {
			all.content = append(all.content, Digest(target.Ref))
		}
	}
	if len(result.Tags)+len(result.Manifests)+len(all.content) == 0 {
		return Purged{}, fmt.Errorf("%s: %w", strings.Trim(Reference(target).String(), "/:@"), ErrNotKept)
	}
	slices.Sort(result.Tags)
	slices.Sort(result.Manifests)
	result.Blobs, result.Bytes = len(all.content), w.bytes(all)
	if dryRun {
		return result, nil
	}
	result.Bytes, err = p.remove(ctx, w, all)
	for _, d := range all.content {
		p.opts.Memory.Delete(d)
	}
	return result, err
}

// pinnedFor says whether a pin speaks against purging n. One of two tags may go
// while a pin is on the other.
func (p *Puller) pinnedFor(n *keptNode, ref string, byDigest bool) bool {
	if ref != "" && !byDigest && len(n.tags) > 1 {
		return p.pinnedRef(n.repo, ref)
	}
	return n.pinned
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
