package store

import "context"

// Short receives whenever room is short: a pass of eviction is due.
func (s *Store) EvictionDue() <-chan struct{} { return s.room.evictionDue }

// NotKept notes that something could not be kept: a pass of eviction is due.
func (s *Store) NotCached() { s.room.wake() }

// Expect notes that n more bytes are being downloaded, or, where n is negative,
// that they no longer are.
func (s *Store) AddIncoming(n int64) { s.room.addIncoming(n) }

// MaxBytes is the bound of what is kept, 0 where there is none.
func (s *Store) MaxBytes() int64 { return s.room.bounds.MaxBytes }

// Pass runs one pass of eviction. Free is told how many bytes have to go, and
// returns how many went. Those who wait for room look again when it is over.
func (s *Store) EvictionPass(free func(excess int64) (freed int64)) {
	r := s.room
	r.mu.Lock()
	r.passes.begun++
	r.mu.Unlock()
	var freed int64
	if excess := r.excess(); excess > 0 {
		freed = free(excess)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.passes.ended, r.passes.freed = r.passes.begun, freed
	close(r.passes.next)
	r.passes.next = make(chan struct{})
}

// Count goes over everything that lies on disk, tells see, and takes the sum
// for what is kept: it is exact but for what others take out of the folder
// meanwhile. Nothing may be deleted meanwhile: its caller is the one who
// deletes.
func (s *Store) Count(ctx context.Context, visit func(d Digest, size int64)) error {
	r := s.room
	c := &recount{added: make(map[Digest]bool)}
	r.mu.Lock()
	for d, n := range r.reserved {
		c.added[d] = true
		c.bytes += n
	}
	r.counting = c
	r.mu.Unlock()
	var total int64
	err := s.blobs.Walk(ctx, func(d Digest, size int64) bool {
		if visit != nil {
			visit(d, size)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if !c.added[d] {
			total += r.weight(size)
		}
		return true
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counting = nil
	if err != nil {
		return err
	}
	r.addUsed(total + c.bytes - r.used)
	r.counted = true
	return nil
}

// Walk calls fn for everything on disk, as [cache.Blobs] does.
func (s *Store) Walk(ctx context.Context, fn func(d Digest, size int64) bool) error {
	return s.blobs.Walk(ctx, fn)
}

// State is what the store has in work, in bytes and numbers; for tests.
type State struct {
	Used, Incoming, Waiting int64
	Reserved                int
}

// State returns what the store has in work.
func (s *Store) State() State {
	s.room.mu.Lock()
	defer s.room.mu.Unlock()
	return State{Used: s.room.used, Incoming: s.room.incoming, Waiting: s.room.waiting, Reserved: len(s.room.reserved)}
}
