package store

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/entrepot/entrepot/cache"
)

const (
	// roomWait is how long a write that was refused waits for eviction. A client
	// may wait for it, and gets its bytes without the disk then.
	roomWait = 3 * time.Second
	// refusedShare is the share of what is in use, a fiftieth, that is removed
	// when the disk refuses a write although there is room by all that it tells
	// of itself: less would be asked for again by the next blob.
	refusedShare = 50
	// filesNeeded is how many files a blob may take, with its folder, its
	// checksums and the map of its pieces.
	filesNeeded = 4
	// If nothing comes of that maxVain times in a row, the reason is not in this
	// cache, and removing more would empty it. It is tried again after vainWait,
	// and then after twice as long, up to maxVainWait.
	maxVain     = 3
	vainWait    = 2 * time.Second
	maxVainWait = 5 * time.Minute
	doublings   = 8 // after which it is longer than that
)

// refusals are the writes that were refused for lack of room.
type refusals struct {
	wanted tally // to be removed by the next pass
	last   Met
	times  map[cache.Bound]int64 // that each bound was met
	logged bool                  // since something was stored
	vain   int                   // tries in a row for which room was made, and that failed again
	notYet time.Time
}

// Met says that a bound was met, and when. The zero value is that none was.
type Met struct {
	Bound cache.Bound
	At    time.Time
}

// LastMet returns the bound that was met last.
func (s *Store) LastMet() Met {
	s.room.mu.Lock()
	defer s.room.mu.Unlock()
	return s.room.refusals.last
}

// met notes that a bound was met. r.mu is held.
func (r *room) met(bound cache.Bound) {
	r.refusals.last = Met{bound, time.Now()}
	if r.refusals.times == nil {
		r.refusals.times = make(map[cache.Bound]int64)
	}
	r.refusals.times[bound]++
}

// TimesMet returns how often each bound was met.
func (s *Store) TimesMet() map[cache.Bound]int64 {
	s.room.mu.Lock()
	defer s.room.mu.Unlock()
	return maps.Clone(s.room.refusals.times)
}

// withRoom stores something. If there is no room for its size bytes, it has room
// made, and tries again once.
func (s *Store) withRoom(ctx context.Context, size int64, store func() error) error {
	err := store()
	if !s.makeRoom(ctx, size, err) {
		return err
	}
	err = store()
	s.room.tried(err)
	return err
}

// makeRoom has room made for a write that failed with err, and says whether it
// is worth another try. It does not wait for long.
func (s *Store) makeRoom(ctx context.Context, size int64, err error) bool {
	if !errors.Is(err, cache.ErrFull) {
		return false
	}
	s.noteFull(err)
	r := s.room
	wait, cancel := context.WithTimeout(ctx, roomWait)
	defer cancel()
	r.mu.Lock()
	defer r.mu.Unlock()
	need, before, begun := tally{max(size, 1), filesNeeded}, r.removed, r.passes.begun
	if !r.passes.running || r.used == 0 || time.Now().Before(r.refusals.notYet) {
		return false // nobody removes anything, or there is nothing, or nothing comes of it
	}
	r.refusals.wanted.files = max(r.refusals.wanted.files, 4*filesNeeded)
	r.refusals.wanted.bytes = max(r.refusals.wanted.bytes, r.used/refusedShare) + need.bytes
	r.wake()
	for r.passes.running && r.passes.ended <= begun && !r.removed.minus(before).covers(need) {
		changed := r.passes.changed
		r.mu.Unlock()
		select {
		case <-changed:
		case <-wait.Done():
		}
		r.mu.Lock()
		if wait.Err() != nil {
			break
		}
	}
	return r.removed != before
}

// tried notes how the second try of a write ended.
func (r *room) tried(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !errors.Is(err, cache.ErrFull) {
		r.refusals.vain, r.refusals.notYet = 0, time.Time{}
		return
	}
	if r.refusals.vain++; r.refusals.vain >= maxVain {
		r.refusals.notYet = time.Now().Add(min(vainWait<<min(r.refusals.vain-maxVain, doublings), maxVainWait))
	}
}

// noteFull notes and logs which bound was met. It is logged again only after
// something was stored in the meantime.
func (s *Store) noteFull(err error) {
	bound := cache.BoundOf(err)
	space, known := s.room.space()
	if bound == cache.DiskSpace && known && space.Inodes > 0 && space.FreeInodes == 0 {
		bound = cache.Inodes
	}
	s.room.mu.Lock()
	isNew := !s.room.refusals.logged || s.room.refusals.last.Bound != bound
	s.room.refusals.logged = true
	s.room.met(bound)
	s.room.mu.Unlock()
	if isNew {
		s.log.Warn("the cache is full: room is made for new content", "bound", string(bound), "error", err)
	}
}

// stored notes that there was room for something.
func (r *room) stored() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refusals.logged = false
}

// roomDraft is a draft for which room is made when a write is refused.
type roomDraft struct {
	cache.Draft
	s    *Store
	size int64
}

// withRoom does not end with the request that began the draft, which may be over
// long before the draft is: only with the time that it may take, and with the
// passes of eviction.
func (d *roomDraft) withRoom(size int64, store func() error) error {
	return d.s.withRoom(context.Background(), size, store)
}

func (d *roomDraft) Write(b []byte) (n int, err error) {
	err = d.withRoom(d.missing(int64(len(b))), func() error {
		m, err := d.Draft.Write(b[n:])
		n += m
		return err
	})
	return n, err
}

// WriteAt may write some of it again, which changes nothing.
func (d *roomDraft) WriteAt(b []byte, off int64) (n int, err error) {
	err = d.withRoom(d.missing(int64(len(b))), func() error {
		n, err = d.Draft.WriteAt(b, off)
		return err
	})
	return n, err
}

func (d *roomDraft) Reserve() error {
	return d.withRoom(d.missing(0), d.Draft.Reserve)
}

func (d *roomDraft) Commit() error { return d.withRoom(1, d.Draft.Commit) }

func (d *roomDraft) Keep(note []byte) error {
	return d.withRoom(1, func() error { return d.Draft.Keep(note) })
}

// missing is how many bytes are still to be written, at least n.
func (d *roomDraft) missing(n int64) int64 {
	if d.size < 0 {
		return n
	}
	return max(n, d.size-d.Pieces().Len())
}
