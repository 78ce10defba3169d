package retention

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

var (
	// ErrPinned means that an image is not purged because it is pinned.
	ErrPinned = errors.New("it is pinned")
	// ErrNotCached means that the cache has nothing that matches the target.
	ErrNotCached = errors.New("it is not in the cache")
)

// Target is what to purge: a tag or a digest in a repository, a whole
// repository if Ref is empty, or a digest in every repository if Repository is
// empty.
type Target Reference

// Purged says what a purge removed, or would remove.
type Purged struct {
	Tags      []string `json:"tags"`      // with their repositories
	Manifests []string `json:"manifests"` // with their repositories
	Blobs     int      `json:"blobs"`     // files, including those of manifests
	Bytes     int64    `json:"bytes"`
}

// Purge removes the target. If the target is one of several tags of an image,
// it removes only the tag. With dryRun set, it removes nothing. It returns
// ErrNotCached if nothing in the cache matches the target.
func (r *Retention) Purge(ctx context.Context, target Target, dryRun bool) (Purged, error) {
	r.sweeping.Lock()
	defer r.sweeping.Unlock()
	s, err := r.snapshot(ctx)
	if err != nil {
		return Purged{}, err
	}
	defer s.watch.End()
	_, wantsDigest := digest.Parse(target.Ref)
	byDigest := target.Ref != "" && wantsDigest == nil
	byTag := target.Ref != "" && !byDigest
	needed := s.reachableFromPins()

	result := Purged{Tags: []string{}, Manifests: []string{}}
	var roots []*node
	for _, n := range s.sorted() {
		switch {
		case target.Repository != (Repository{}) && n.repo != target.Repository:
		case byDigest && n.digest != Digest(target.Ref):
		case byTag && !slices.Contains(n.tags, target.Ref):
		case byTag && n.losesOnlyTag() && r.ledger.IsPinned(n.repo, target.Ref), !(byTag && n.losesOnlyTag()) && needed[n]:
			return Purged{}, fmt.Errorf("%s: %w: unpin it first", Reference{Repository: n.repo, Ref: n.digest.String()}, ErrPinned)
		case byTag && n.losesOnlyTag():
			result.Tags = append(result.Tags, Reference{Repository: n.repo, Ref: target.Ref}.String())
			if !dryRun {
				r.ledger.DropTag(n.repo, target.Ref)
			}
		default:
			roots = append(roots, n)
		}
	}
	var all removal
	var members, blobs []Digest
	if target.Ref == "" {
		// Blobs that were requested without a manifest belong to the repository
		// too.
		members = r.ledger.MembersOf(target.Repository)
		for _, d := range members {
			if _, here := s.sizes[d]; here && s.references.content[d] == 0 {
				blobs = append(blobs, d)
			}
		}
	}
	for _, n := range roots {
		if n.gone {
			continue
		}
		n.parents = 0
		all.manifests = append(all.manifests, s.detach(n).manifests...)
	}
	all.blobs = append(s.orphanedContent(parentsFirst(all.manifests)), blobs...)
	for _, n := range all.manifests {
		result.Manifests = append(result.Manifests, Reference{Repository: n.repo, Ref: n.digest.String()}.String())
		for _, tag := range n.tags {
			result.Tags = append(result.Tags, Reference{Repository: n.repo, Ref: tag}.String())
		}
	}
	if _, here := s.sizes[Digest(target.Ref)]; byDigest && here && !slices.Contains(all.blobs, Digest(target.Ref)) {
		// A blob, or a manifest that another repository needs too. Whoever
		// purges a digest wants its content to be downloaded again.
		if target.Repository == (Repository{}) {
			for _, n := range s.sorted() {
				if needed[n] && n.hasBlob(Digest(target.Ref)) {
					return Purged{}, fmt.Errorf("%s of %s: %w: unpin it first", target.Ref, Reference{Repository: n.repo, Ref: n.digest.String()}, ErrPinned)
				}
			}
			all.blobs = append(all.blobs, Digest(target.Ref))
		}
	}
	if len(result.Tags)+len(result.Manifests)+len(all.blobs)+len(members) == 0 {
		return Purged{}, fmt.Errorf("%s: %w", strings.Trim(Reference(target).String(), "/:@"), ErrNotCached)
	}
	slices.Sort(result.Tags)
	slices.Sort(result.Manifests)
	result.Blobs, result.Bytes = len(all.blobs), s.bytes(all)
	if dryRun {
		return result, nil
	}
	if target.Ref == "" {
		r.ledger.DropRepository(target.Repository)
	}
	result.Bytes, err = r.removeAll(ctx, s, all)
	return result, err
}

// losesOnlyTag says whether a manifest stays when one of its tags is purged: it
// has another tag, or it belongs to an index.
func (n *node) losesOnlyTag() bool { return len(n.tags) > 1 || n.platform }

// hasBlob says whether d is a blob of the manifest.
func (n *node) hasBlob(d Digest) bool {
	return slices.ContainsFunc(n.rec.Blobs, func(b Descriptor) bool { return b.Digest == d })
}

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

// parentsFirst sorts manifests so that each comes after those that reference
// it.
func parentsFirst(manifests []*node) []*node {
	included, seen := make(map[*node]bool), make(map[*node]bool)
	for _, n := range manifests {
		included[n] = true
	}
	var order []*node
	var visit func(n *node)
	visit = func(n *node) {
		if seen[n] || !included[n] {
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
