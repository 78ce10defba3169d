package retention

import (
	"context"
	"slices"

	"github.com/entrepot/entrepot/proxy/metadata"
)

// part is a snapshot of one repository: what references what never reaches beyond
// one. How often other repositories reference its content is for the caller to
// add. It begins no watch, and the total is not known.
func (r *Retention) part(ctx context.Context, repo Repository, drafts map[Digest]draft) (*snapshot, error) {
	s := newSnapshot(r.ledger)
	s.drafts = drafts
	recs, err := r.ledger.ManifestsOf(repo)
	if err != nil {
		return nil, err
	}
	for d, rec := range recs {
		n := &node{repo: repo, digest: d, rec: rec}
		s.nodes[n.key()] = n
	}
	if err := r.ledger.EachTagOf(repo, func(tag string, d Digest) {
		if n := s.nodes[metadata.Key(repo, d.String())]; n != nil {
			n.tags = append(n.tags, tag)
		}
	}); err != nil {
		return nil, err
	}
	for _, n := range s.nodes {
		n.pinned = s.isPinned(n)
		r.findBlobs(ctx, s, n)
	}
	s.link()
	return s, ctx.Err()
}

// partForTag is all of a snapshot that a purge of a tag looks at: the repository,
// and who else references what may be removed with it. The caller holds sweeping,
// and ends the watch.
func (r *Retention) partForTag(ctx context.Context, target Target) (*snapshot, error) {
	watch := r.ledger.Watch() // first: what is stored from now on, it protects
	s, err := r.part(ctx, target.Repository, draftsIn(r.store))
	if err == nil {
		s.watch = watch
		err = r.addOthers(ctx, s, target)
	}
	if err != nil {
		watch.End()
		return nil, err
	}
	return s, nil
}

// addOthers counts the references of other repositories to what the tag leads to.
func (r *Retention) addOthers(ctx context.Context, s *snapshot, target Target) error {
	leads := make(map[*node]bool)
	for _, n := range s.nodes {
		if slices.Contains(n.tags, target.Ref) {
			n.collect(leads)
		}
	}
	sought := make(map[string]bool)
	for n := range leads {
		sought[n.digest.String()] = true
		for _, d := range n.blobs {
			sought[d.String()] = true
		}
	}
	if len(sought) == 0 {
		return nil
	}
	found := s.references.content
	wide := make(map[Digest]string) // media types
	own := metadata.RepositoryKey(target.Repository)
	err := r.ledger.EachNaming(func(n metadata.Naming) {
		if n.Repository == own {
			return
		}
		if sought[n.Digest.String()] {
			found[n.Digest]++
		}
		if mediaType, ok := n.Wide(); ok {
			wide[n.Digest] = mediaType
			return
		}
		n.EachBlob(func(d []byte) {
			if sought[string(d)] {
				found[Digest(d)]++
			}
		})
	})
	for d, mediaType := range wide {
		names, ok := r.store.Names(ctx, mediaType, d)
		for name := range sought {
			if ok && names.Has(Digest(name)) {
				found[Digest(name)]++
			}
		}
	}
	return err
}

// findBlobs finds out what a manifest references, and which of that is here.
func (r *Retention) findBlobs(ctx context.Context, s *snapshot, n *node) {
	isHere := func(d Digest) bool {
		if _, known := s.sizes[d]; known {
			return true
		}
		size, err := r.store.Stat(ctx, d)
		if err == nil {
			s.sizes[d] = size
		}
		return err == nil
	}
	isHere(n.digest)
	if !n.rec.Wide {
		n.blobs = digestsOf(n.rec.Blobs)
		for _, d := range n.blobs {
			isHere(d)
		}
		return
	}
	names, ok := r.store.Names(ctx, n.rec.MediaType, n.digest)
	if !ok {
		return // without its content it is of no use
	}
	n.names = names
	r.store.EachName(ctx, n.rec.MediaType, n.digest, func(named Descriptor, _ bool) bool {
		if _, isDraft := s.drafts[named.Digest]; isHere(named.Digest) || isDraft {
			n.blobs = append(n.blobs, named.Digest)
		}
		return ctx.Err() == nil
	})
}
