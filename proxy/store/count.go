package store

import "context"

// Short receives whenever room is short: a pass of eviction is due.
func (s *Store) Short() <-chan struct{} { return s.room.short }

// NotKept notes that something could not be kept: a pass of eviction is due.
func (s *Store) NotKept() { s.room.wake() }

// Expect notes that n more bytes are being downloaded, or, where n is negative,
// that they no longer are.
func (s *Store) Expect(n int64) { s.room.expect(n) }

// MaxBytes is the bound of what is kept, 0 where there is none.
func (s *Store) MaxBytes() int64 { return s.room.bounds.MaxBytes }

// Pass runs one pass of eviction. Free is called with how many bytes have to go,
// unless none have to, and returns how many went. Those who wait for room look
// again when the pass is over. A pass that had nothing to do is not in vain:
// whoever finds no room after it was too slow to take what the last one made.
func (s *Store) Pass(free func(excess int64) (freed int64)) {
	pass, vain := s.room.beginPass(), false
	if excess := s.room.excess(); excess > 0 {
		vain = free(excess) == 0
	}
	s.room.endPass(pass, vain)
}

func (r *room) beginPass() (pass int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.passes.begun++
	return r.passes.begun
}

func (r *room) endPass(pass int, vain bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.passes.ended, r.passes.vain = pass, vain
	close(r.passes.next)
	r.passes.next = make(chan struct{})
}

// Count goes over everything that lies on disk, tells see, and takes the sum
// for what is kept: it is exact but for what others take out of the folder
// meanwhile. Nothing may be deleted meanwhile: its caller is the one who
// deletes.
func (s *Store) Count(ctx context.Context, see func(d Digest, size int64)) error {
	r := s.room
	c := &count{came: make(map[Digest]bool)}
	r.mu.Lock()
	for d, n := range r.reserved {
		c.came[d] = true
		c.bytes += n
	}
	r.counting = c
	r.mu.Unlock()
	var total int64
	err := s.blobs.Walk(ctx, func(d Digest, size int64) bool {
		if see != nil {
			see(d, size)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if !c.came[d] {
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
	r.change(total + c.bytes - r.kept)
	r.counted = true
	return nil
}

// Walk calls fn for everything on disk, as [cache.Blobs] does.
func (s *Store) Walk(ctx context.Context, fn func(d Digest, size int64) bool) error {
	return s.blobs.Walk(ctx, fn)
}

// State is what the store has in work, in bytes and numbers; for tests.
type State struct {
	Kept, Incoming, Waiting int64
	Reserved                int
}

// State returns what the store has in work.
func (s *Store) State() State {
	s.room.mu.Lock()
	defer s.room.mu.Unlock()
	return State{Kept: s.room.kept, Incoming: s.room.incoming, Waiting: s.room.waiting, Reserved: len(s.room.reserved)}
}
