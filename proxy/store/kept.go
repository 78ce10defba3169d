package store

import (
	"context"
	"fmt"

	"github.com/entrepot/entrepot/cache"
)

// Keep keeps a draft of d for Resume, with a note. What is there of it counts as
// in use from then on.
func (s *Store) Keep(_ context.Context, d Digest, draft cache.Draft, note []byte) error {
	err := draft.Keep(note)
	s.countKept(d)
	return err
}

// Resume continues the draft of d that was kept. It returns cache.ErrNotFound if
// there is none. What is there of it no longer counts as in use: it belongs to a
// download again.
func (s *Store) Resume(ctx context.Context, d Digest) (cache.Draft, cache.KeptDraft, error) {
	draft, kept, err := s.blobs.Resume(ctx, d)
	s.countKept(d)
	return draft, kept, err
}

// Kept describes the draft of d that was kept, if there is one.
func (s *Store) Kept(d Digest) (cache.KeptDraft, bool) { return s.blobs.Kept(d) }

// AllKept describes all drafts that were kept, in no particular order.
func (s *Store) AllKept() []cache.KeptDraft { return s.blobs.AllKept() }

// DropKept removes the draft of d that was kept, and returns the bytes that were
// freed.
func (s *Store) DropKept(ctx context.Context, d Digest) (freed int64, err error) {
	if err := s.blobs.DropKept(ctx, d); err != nil {
		return 0, fmt.Errorf("a partial download: %w", err)
	}
	return s.countKept(d), nil
}

// countKept counts what is kept of d again, and returns by how much less it is.
func (s *Store) countKept(d Digest) (less int64) {
	r := s.room
	r.mu.Lock()
	defer r.mu.Unlock()
	var now int64
	if kept, ok := s.blobs.Kept(d); ok {
		now = r.weight(kept.Bytes)
	}
	less = r.kept[d] - now
	if r.kept[d] = now; now == 0 {
		delete(r.kept, d)
	}
	r.addUsed(-less)
	if less < 0 && r.isUnderPressure() {
		r.wake()
	}
	return less
}

// countAllKept returns the bytes of all drafts that were kept. r.mu is held.
func (r *room) countAllKept(all []cache.KeptDraft) (total int64) {
	clear(r.kept)
	for _, kept := range all {
		r.kept[kept.Digest] = r.weight(kept.Bytes)
		total += r.kept[kept.Digest]
	}
	return total
}
