package retention

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// purge is what is to be removed for a target. The manifests and what only they
// reference are already detached from the snapshot.
type purge struct {
	*snapshot
	target   Target
	digest   Digest   // of the target, or "" if it is a tag or a repository
	untagged []*node  // they stay, and lose only the tag
	members  []Digest // the blobs of a repository, whether they are cached or not
	subjects []KnownReferrers
	removed  removal
}

// planPurge finds out what is to be removed. It returns ErrPinned or
// ErrNotCached if that must not or cannot be.
func (s *snapshot) planPurge(target Target) (*purge, error) {
	p := &purge{snapshot: s, target: target}
	if d, err := digest.Parse(target.Ref); err == nil {
		p.digest = d
	}
	roots, err := p.findManifests()
	if err != nil {
		return nil, err
	}
	strays := p.findStrays() // before the manifests go: their blobs are no strays
	if err := p.addSubjects(); err != nil {
		return nil, err
	}
	p.detachAll(roots)
	p.removed.blobs = append(p.removed.blobs, strays...)
	if err := p.addNamedContent(); err != nil {
		return nil, err
	}
	p.addDrafts()
	if len(p.untagged)+len(p.removed.manifests)+len(p.removed.blobs)+len(p.removed.drafts)+len(p.members)+len(p.subjects) == 0 {
		return nil, fmt.Errorf("%s: %w", strings.Trim(Reference(target).String(), "/:@"), ErrNotCached)
	}
	return p, nil
}

// findManifests returns the manifests that the target names, and notes those
// that only lose a tag.
func (p *purge) findManifests() (roots []*node, err error) {
	needed := p.reachableFromPins()
	for _, n := range p.sorted() {
		losesOnlyTag := p.isTag() && n.losesOnlyTag()
		switch {
		case !p.names(n):
		case losesOnlyTag && p.ledger.IsPinned(n.repo, p.target.Ref), !losesOnlyTag && needed[n]:
			return nil, fmt.Errorf("%s: %w: unpin it first", n.reference(), ErrPinned)
		case losesOnlyTag:
			p.untagged = append(p.untagged, n)
		default:
			roots = append(roots, n)
		}
	}
	return roots, nil
}

func (p *purge) isTag() bool { return p.target.isTag() }

// names says whether the target names a manifest, by itself or with its
// repository.
func (p *purge) names(n *node) bool {
	switch {
	case !p.target.covers(n.repo):
		return false
	case p.isTag():
		return slices.Contains(n.tags, p.target.Ref)
	}
	return p.target.isRepository() || n.digest == p.digest
}

// namesDraft says whether the target names a draft, by its digest or with the
// repository that it was begun in.
func (p *purge) namesDraft(d draft) bool {
	return p.target.covers(d.repo) && (p.target.isRepository() || d.Digest == p.digest)
}

// findStrays returns the blobs of a repository that no manifest references. They
// were requested without one, and belong to it too.
func (p *purge) findStrays() (strays []Digest) {
	switch {
	case p.target == Everything():
		for _, blob := range p.unreferencedBlobs() {
			strays = append(strays, blob.digest)
		}
		return strays
	case !p.target.isRepository():
		return nil
	}
	p.members = p.ledger.MembersOf(p.target.Repository)
	for _, d := range p.members {
		if _, here := p.sizes[d]; here && p.references.content[d] == 0 {
			strays = append(strays, d)
		}
	}
	return strays
}

// detachAll removes manifests from the snapshot, with what only they reference.
func (p *purge) detachAll(roots []*node) {
	for _, n := range roots {
		if n.gone {
			continue
		}
		n.parents = 0
		p.removed.manifests = append(p.removed.manifests, p.detach(n).manifests...)
	}
	p.removed.blobs = p.orphanedContent(parentsFirst(p.removed.manifests))
}

// addNamedContent adds the content whose digest is the target in every
// repository: a blob, or a manifest that another repository needs too. Whoever
// purges a digest wants its content to be downloaded again. It returns ErrPinned
// if a pinned image of any repository needs that content, or the draft that the
// target names.
func (p *purge) addNamedContent() error {
	if p.digest == "" {
		return nil
	}
	_, here := p.sizes[p.digest]
	here = here && p.target.Repository == Repository{} && !slices.Contains(p.removed.blobs, p.digest)
	d, kept := p.drafts[p.digest]
	if !here && !(kept && p.namesDraft(d)) {
		return nil
	}
	if n := p.pinnedContent()[p.digest]; n != nil {
		return fmt.Errorf("%s of %s: %w: unpin it first", p.digest, n.reference(), ErrPinned)
	}
	if here {
		p.removed.blobs = append(p.removed.blobs, p.digest)
	}
	return nil
}

// addDrafts adds the drafts that the target names, and those of blobs that only
// the removed manifests referenced. It leaves what a pinned image of another
// repository needs.
func (p *purge) addDrafts() {
	orphans := make(map[Digest]bool)
	for _, n := range p.removed.manifests {
		for _, d := range append(slices.Clone(n.blobs), n.digest) {
			orphans[d] = p.references.content[d] == 0
		}
	}
	for _, d := range p.unpinnedDrafts() {
		if orphans[d.Digest] || p.namesDraft(d) {
			p.removed.drafts = append(p.removed.drafts, d.Digest)
		}
	}
}

// reference names the manifest by its digest.
func (n *node) reference() Reference {
	return Reference{Repository: n.repo, Ref: n.digest.String()}
}

// losesOnlyTag says whether a manifest stays when one of its tags is purged: it
// has another tag, or it belongs to an index.
func (n *node) losesOnlyTag() bool { return len(n.tags) > 1 || n.platform }

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
