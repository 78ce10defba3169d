package store

import (
	"context"
	"time"

	"github.com/entrepot/entrepot/cache"
)

// Keep keeps a draft of d for Resume, with a note. The bytes that are there
// count as in use from then on. It does not wait for room: what is too much is
// for eviction.
func (s *Store) Keep(_ context.Context, d Digest, draft cache.Draft, note []byte) error {
	err := draft.Keep(note)
	s.recountKept(d)
	return err
}

// Resume continues the draft of d that was kept. It returns cache.ErrNotFound if
// there is none. Its bytes no longer count as in use: they belong to a download
// again.
func (s *Store) Resume(ctx context.Context, d Digest) (cache.Draft, cache.KeptDraft, error) {
	draft, kept, err := s.blobs.Resume(ctx, d)
	s.recountKept(d)
	if err != nil {
		return nil, kept, err
	}
	return &roomDraft{Draft: draft, s: s, size: kept.Size}, kept, nil
}

// Kept describes the draft of d that was kept, if there is one.
func (s *Store) Kept(d Digest) (cache.KeptDraft, bool) { return s.blobs.Kept(d) }

// AllKept describes the drafts that were kept, in no particular order.
func (s *Store) AllKept() []cache.KeptDraft { return s.blobs.AllKept() }

// DropKept removes the draft of d that was kept at that time, or, if that is
// zero, at any, and returns the bytes that this freed. A draft that a download
// has resumed is not kept, and stays.
func (s *Store) DropKept(ctx context.Context, d Digest, keptAt time.Time) (freed int64) {
	err := s.blobs.DropKept(ctx, d, keptAt)
	less := -s.recountKept(d)
	if err != nil {
		s.log.Error("unfinished download cannot be removed", "digest", d.String(), "error", err)
		return 0
	}
	if less <= 0 {
		return 0
	}
	s.room.mu.Lock()
	defer s.room.mu.Unlock()
	s.room.noteRemoved(tally{bytes: less, files: 2})
	return less
}

// recountKept counts the draft of d as it is now, and returns by how many bytes
// that is more than before. It is called after everything that keeps a draft or
// ends that. The cache is asked under the lock, so concurrent calls may come in
// any order.
func (s *Store) recountKept(d Digest) (more int64) {
	r := s.room
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.kept[d]
	delete(r.kept, d)
	if kept, ok := s.blobs.Kept(d); ok {
		r.kept[d] = kept.Weight
	}
	if more = r.kept[d] - before; more == 0 {
		return 0
	}
	r.addUsed(more)
	if more > 0 && r.isUnderPressure() {
		r.wake()
	}
	r.serve()
	return more
}

// recountAllKept counts all drafts that are kept now, and returns their bytes.
// r.mu is held.
func (r *room) recountAllKept(all []cache.KeptDraft) (total int64) {
	clear(r.kept)
	for _, kept := range all {
		r.kept[kept.Digest] = kept.Weight
		total += kept.Weight
	}
	return total
}
