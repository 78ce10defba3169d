package store

import (
	"github.com/entrepot/entrepot/cache"
)

const (
	// minInodes is how many files may still be made on a file system before
	// eviction begins: a hundredth of those that it may have, but no more than
	// a thousand pulls need, and no less than one does with its records.
	minInodes, maxInodes = 16, 4096
	inodeShare           = 100
)

// passes are the eviction passes.
type passes struct {
	begun, ended int
	running      bool          // there is somebody who runs them
	vain         bool          // the last pass had to free something, and freed nothing
	changed      chan struct{} // closed when a pass ends, or content is removed
	// disbelieved is a number of free inodes that did not change when files were
	// removed: the file system does not really say how many there are.
	disbelieved int64
}

// A Pass is one pass of eviction.
type Pass struct {
	r *room
	// wanted are what the file system needs to have removed, removed is what
	// had been when the pass began.
	wanted, removed tally
	pressed         bool  // the bytes in use have to go down to the low watermark
	inodes          int64 // that were free, if they were too few; else -1
}

// EvictionDue receives a value when room is short and an eviction pass is due.
func (s *Store) EvictionDue() <-chan struct{} { return s.room.evictionDue }

// EvictionPass runs one pass of eviction. evict is called unless there is enough
// room; it removes content until that is so ([Pass.IsShort]) or there is no more
// to remove. Publications that wait for room get it as content is removed. A
// pass without anything to do is not in vain: one that finds no room after it
// was too slow to take what the pass before had freed.
func (s *Store) EvictionPass(evict func(p *Pass)) {
	p := s.room.beginPass()
	if p.IsShort() {
		evict(p)
	}
	p.end()
}

// EndPasses says that no more passes are run: nobody waits for one any more.
func (s *Store) EndPasses() {
	s.room.mu.Lock()
	defer s.room.mu.Unlock()
	s.room.passes.running = false
	s.room.changedPasses()
}

func (r *room) beginPass() *Pass {
	space, known := r.space()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.passes.begun++
	r.passes.running = true
	p := &Pass{r: r, wanted: r.refusals.wanted, removed: r.removed, inodes: -1, pressed: r.isUnderPressure()}
	r.refusals.wanted = tally{}
	if !known {
		return p
	}
	if least := r.bounds.MinFree; space.Bytes > 0 && space.FreeBytes < least {
		p.wanted.bytes = max(p.wanted.bytes, least+least/100*(100-lowWatermark)-space.FreeBytes)
		r.met(cache.MinFree)
	}
	if least := min(max(space.Inodes/inodeShare, minInodes), maxInodes); space.Inodes > least && space.FreeInodes < least && space.FreeInodes != r.passes.disbelieved {
		p.wanted.files = max(p.wanted.files, 2*least-space.FreeInodes)
		p.inodes = space.FreeInodes
		r.met(cache.Inodes)
	}
	return p
}

// space describes the file system, if it says anything of itself.
func (r *room) space() (_ cache.Space, known bool) {
	if r.bounds.Space == nil {
		return cache.Space{}, false
	}
	space, err := r.bounds.Space()
	return space, err == nil && (space.Bytes > 0 || space.Inodes > 0)
}

// IsShort says whether more has to be removed, going by what is in use and what
// waits for room now.
func (p *Pass) IsShort() bool { return p.IsShortAfter(0, 0) }

// IsShortAfter is IsShort for when so many bytes of content in so many files will
// have been removed, which are about to be.
func (p *Pass) IsShortAfter(bytes, files int64) bool {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	p.pressed = p.pressed || p.r.isUnderPressure()
	if p.pressed && p.r.excess() > bytes {
		return true
	}
	return !p.r.removed.minus(p.removed).minus(tally{-bytes, -files}).covers(p.wanted)
}

// Wanted is how many bytes have to be removed now, for the log.
func (p *Pass) Wanted() int64 {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	wanted := p.wanted.bytes - p.r.removed.minus(p.removed).bytes
	if p.pressed {
		wanted = max(wanted, p.r.excess())
	}
	return max(wanted, 0)
}

func (p *Pass) end() {
	short := p.IsShort()
	r := p.r
	space, _ := r.space()
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.inodes >= 0 && r.removed.files > p.removed.files {
		r.passes.disbelieved = -1
		if space.FreeInodes == p.inodes {
			r.passes.disbelieved = p.inodes
		}
	}
	r.beside.seen = r.beside.bytes()
	r.passes.ended, r.passes.vain = r.passes.begun, short && r.removed == p.removed
	r.settleHopeless()
	r.changedPasses()
}

// changedPasses wakes those who wait for what passes do. r.mu is held.
func (r *room) changedPasses() {
	close(r.passes.changed)
	r.passes.changed = make(chan struct{})
}
