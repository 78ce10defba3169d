package retention

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/referrers"
)

// candidate is what eviction removes in one step: an image, a blob that no image
// references, or a draft.
type candidate struct {
	use    int64                                              // last use, in Unix nanoseconds
	image  image                                              // removed with others; see gathered
	remove func(ctx context.Context) (freed int64, err error) // nil for an image
}

// evict removes content as long as room is short, if there is that much to
// remove, least recently used first. Whether it is, is asked before each step,
// with what is gathered to be removed: the snapshot has counted what is there,
// and more may have come to wait for room. It reports the freed bytes as it goes,
// because a pass over a full disk takes a while.
func (r *Retention) evict(ctx context.Context, isShort func(bytes, files int64) bool) (freed int64, err error) {
	r.sweeping.Lock()
	defer r.sweeping.Unlock()
	s, err := r.snapshot(ctx)
	if err != nil {
		return 0, err
	}
	defer s.watch.End()
	g := &gathered{most: 1}
	for _, next := range r.candidates(s) {
		if ctx.Err() != nil {
			break
		}
		if !isShort(g.bytes, g.files) {
			if freed += r.removeGathered(ctx, s, g); g.err != nil || !isShort(0, 0) {
				return freed, g.err
			}
		}
		if next.remove != nil {
			n, err := next.remove(ctx)
			if freed += n; err != nil {
				return freed, err
			}
			continue
		}
		if r.gather(s, g, next.image); g.isFull() {
			if freed += r.removeGathered(ctx, s, g); g.err != nil {
				return freed, g.err
			}
		}
	}
	freed += r.removeGathered(ctx, s, g)
	return freed, cmp.Or(g.err, ctx.Err())
}

// candidates returns everything that may be evicted, least recently used first.
// A draft is evicted as everything else is, because room is short, and never
// because of its age: as long as there is room it may save a download.
func (r *Retention) candidates(s *snapshot) []candidate {
	var all []candidate
	for _, blob := range s.unreferencedBlobs() {
		all = append(all, candidate{use: blob.use, remove: func(ctx context.Context) (int64, error) {
			freed := r.deleteBlobs(ctx, s, []Digest{blob.digest})
			r.evicted(freed)
			return freed, nil
		}})
	}
	for _, d := range s.unpinnedDrafts() {
		all = append(all, candidate{use: d.lastUse(), remove: func(ctx context.Context) (int64, error) {
			freed := r.evictDraft(ctx, d)
			r.evicted(freed)
			return freed, nil
		}})
	}
	all = append(all, r.recordCandidates(s)...)
	for _, image := range s.images() {
		all = append(all, candidate{use: image.use, image: image})
	}
	// Of what was used at the same time, images go last.
	slices.SortStableFunc(all, func(a, b candidate) int { return cmp.Compare(a.use, b.use) })
	return all
}

// evict removes an image from the records, unless something else references it,
// or it was used after the snapshot was taken.
func (s *snapshot) evict(next image) (removed removal, ok bool) {
	root := next.root
	if root.gone || root.hasParents() || root.pinned || s.lastUse(root) != next.use {
		return removal{}, false
	}
	all := make(map[*node]bool)
	root.collect(all)
	var names []metadata.ManifestKey
	for n := range all {
		names = append(names, metadata.ManifestKey{Repository: n.repo, Digest: n.digest})
	}
	ok = s.watch.ForgetUnused(names, func(from metadata.Removal) bool {
		if s.isPinned(root) {
			return false
		}
		removed = s.detach(root)
		s.dropRecords(removed, from)
		return true
	})
	return removed, ok
}

// removeAll removes what was detached, even if it is in use, and returns the
// bytes that were freed.
func (r *Retention) removeAll(ctx context.Context, s *snapshot, removed removal) (int64, error) {
	s.watch.Forget(func(from metadata.Removal) { s.dropRecords(removed, from) })
	return r.deleteContent(ctx, s, removed)
}

// dropRecords removes manifests from the records, with everything that only
// they made known.
func (s *snapshot) dropRecords(removed removal, from metadata.Removal) {
	for _, n := range removed.manifests {
		for _, tag := range n.tags {
			from.DropTagAt(n.repo, tag, n.digest)
		}
		from.DropManifest(n.repo, n.digest, s.references.marks[n.key()] == 0)
		s.dropMarks(n, from)
		for _, d := range n.blobs {
			if s.references.members[metadata.Key(n.repo, d.String())] == 0 {
				from.DropMember(n.repo, d)
			}
		}
	}
}

// dropMarks removes the records of what an index attached, unless another index
// attaches it too. They stay as long as the index is cached, whether the
// attestation itself is or not.
func (s *snapshot) dropMarks(n *node, from metadata.Removal) {
	for _, a := range referrers.AttestationsAmong(n.rec.Children) {
		if s.references.marks[metadata.AttachedKey(n.repo, a.Subject, a.Entry.Digest)] == 0 {
			from.DropAttached(n.repo, a.Subject, a.Entry.Digest)
		}
		if s.references.marks[metadata.Key(n.repo, a.Entry.Digest.String())] == 0 {
			from.DropAttestation(n.repo, a.Entry.Digest)
		}
	}
}

// deleteContent deletes the content of what was removed from the records, and
// returns the bytes that were freed. The records are made durable first: a
// crash in between leaves unreferenced blobs, but never a manifest without its
// blobs.
func (r *Retention) deleteContent(ctx context.Context, s *snapshot, removed removal) (int64, error) {
	err := r.ledger.Flush(ctx)
	if err != nil && !errors.Is(err, cache.ErrFull) {
		return 0, err
	}
	freed := r.deleteBlobs(ctx, s, removed.blobs)
	for _, d := range removed.drafts {
		freed += r.dropDraft(ctx, d, s.drafts[d].KeptAt)
	}
	if err != nil {
		// There was no room to write the records, and now there is. After a
		// power cut in between, the manifests would be on record again, but
		// without their content, which was deleted first, so they would not be
		// served.
		err = r.ledger.Flush(ctx)
	}
	return freed, err
}

// deleteBlobs deletes content, unless it was leased after the snapshot was
// taken.
func (r *Retention) deleteBlobs(ctx context.Context, s *snapshot, digests []Digest) (freed int64) {
	for _, d := range digests {
		size, onDisk := s.sizes[d]
		if !onDisk || !s.watch.Remove(d, func() bool { return r.delete(ctx, d, size) }) {
			continue
		}
		delete(s.sizes, d)
		r.ledger.DropBlobUse(d)
		freed += r.store.Weight(size)
	}
	return freed
}

// delete deletes content, with the record that it may be private.
func (r *Retention) delete(ctx context.Context, d Digest, size int64) bool {
	if !r.store.Delete(ctx, d, size) {
		return false
	}
	r.ledger.DropPrivate(d)
	return true
}
