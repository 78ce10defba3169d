package store

import (
	"context"
	"maps"
)

// NotCached reports that something could not be cached. An eviction pass is
// then due.
func (s *Store) NotCached() { s.room.wake() }

// AddIncoming adds n to the number of bytes that are being downloaded; n may be
// negative.
func (s *Store) AddIncoming(n int64) { s.room.addIncoming(n) }

// Grow is AddIncoming for n bytes more of content whose size nobody gives. Such
// content may have no end. So it returns cache.ErrFull where all that is being
// downloaded would be more than the cache may hold.
func (s *Store) Grow(n int64) error {
	err := s.room.grow(n)
	if err != nil {
		s.noteFull(err)
	}
	return err
}

// MaxBytes is the bound on the stored bytes, or 0 if there is none.
func (s *Store) MaxBytes() int64 { return s.room.bounds.MaxBytes }

// Count walks everything on disk, calls visit for published content, and takes
// the sum for the bytes in use, with the drafts that were kept. The result is
// exact unless someone else deletes files in the meantime. Nothing published may
// be deleted while it runs: the caller is the only one that deletes. Drafts may
// come and go.
func (s *Store) Count(ctx context.Context, visit func(d Digest, size int64)) error {
	r := s.room
	c := &recount{found: make(map[Digest]int64), added: make(map[Digest]int64)}
	r.mu.Lock()
	maps.Copy(c.added, r.reserved)
	r.counting = c
	r.mu.Unlock()
	err := s.blobs.Walk(ctx, func(d Digest, size int64) bool {
		if visit != nil {
			visit(d, size)
		}
		c.found[d] = r.weight(size)
		return true
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counting = nil
	if err != nil {
		return err
	}
	// After the walk, under the lock: what is kept or resumed from now on changes
	// the count itself.
	r.addUsed(c.total() + r.recountAllKept(s.blobs.AllKept()) - r.used)
	r.counted, r.exact = true, true
	r.serve()
	return nil
}

// Walk calls fn for everything on disk, like [cache.Blobs].Walk.
func (s *Store) Walk(ctx context.Context, fn func(d Digest, size int64) bool) error {
	return s.blobs.Walk(ctx, fn)
}

// KeptBytes is how many of the bytes in use are those of drafts that were kept.
func (s *Store) KeptBytes() int64 { return s.State().Kept }

// State is the internal state of a Store, in bytes and counts. It is for tests
// and metrics.
type State struct {
	Used, Kept, Incoming, Waiting int64
	Removed                       int64 // since the start
	Reserved                      int
}

// State returns the internal state.
func (s *Store) State() State {
	s.room.mu.Lock()
	defer s.room.mu.Unlock()
	state := State{Used: s.room.used, Incoming: s.room.demand.incoming, Removed: s.room.removed.bytes, Waiting: s.room.demand.waiting, Reserved: len(s.room.reserved)}
	for _, n := range s.room.kept {
		state.Kept += n
	}
	return state
}
