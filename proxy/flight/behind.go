package flight

import (
	"hash"
)

// behind is where the readers of a spool go that are too slow for its window,
// and those that come too late for it: to a further download of the same
// content, which they share. It begins where they are, with the hash of what is
// before that, so that it proves the whole. It is guarded by the spool's mu.
type behind struct {
	budget *budget
	// begin begins a download after the first from bytes, whose hash is known.
	begin func(from int64, state hash.Hash) *Flight
	last  *Flight // that was begun
}

// leaveBehind moves readers to a further download. s.mu is held.
func (s *spool) leaveBehind(readers []*position) {
	for _, r := range readers {
		r.dropped = true
		if s.behind.begin == nil {
			continue
		}
		state, err := s.window.hashAtStart()
		if err == nil { // or it is told that it is too slow
			r.next = s.behind.take(max(r.off, s.window.start), s.window.start, state)
		}
	}
}

// take has a reader read from off on with a further download, which begins after
// the first from bytes unless there is one that is near.
func (b *behind) take(off, from int64, state hash.Hash) *position {
	if b.last != nil && b.last.spool.isNear(off) {
		return b.last.take(off)
	}
	b.last = b.begin(from, state)
	defer b.last.spool.release()
	return b.last.take(off)
}

// joinBehind moves a reader that wants everything, and comes when the window has
// advanced, to a further download.
func (s *spool) joinBehind(r *position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.behind.begin == nil || r.next != nil || !s.inMemory || r.off > 0 || s.window.start == s.window.onDisk {
		return
	}
	r.dropped, r.next = true, s.behind.take(0, 0, s.digest.Algorithm().Hash())
}

// isNear says whether a reader at off may join without waiting for long: the
// window has not advanced past it, and is not far from it.
func (s *spool) isNear(off int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.holders > 1 && s.window.start <= off && off <= s.window.end+window
}

// take begins the reading of one that was left behind, and holds the flight for
// it.
func (f *Flight) take(off int64) *position {
	p := &position{s: f.spool, f: f, off: off}
	f.spool.mu.Lock()
	defer f.spool.mu.Unlock()
	f.spool.holders++
	f.spool.readers[p] = struct{}{}
	return p
}

// follow goes to where a reader was moved, once it has read what is here. It
// says whether it has.
func (r *Reader) follow(at int64) bool {
	r.at.s.mu.Lock()
	next := r.at.next
	if next == nil || at < next.from() {
		r.at.s.mu.Unlock()
		return false
	}
	r.at.next = nil
	r.at.s.mu.Unlock()
	before := r.at
	r.leave()
	before.end()
	_ = before.close()
	r.f, r.at = next.f, next
	next.s.mu.Lock()
	next.off = at // it has read on since it was moved
	next.s.wakeWriter()
	next.s.mu.Unlock()
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	r.f.readers = append(r.f.readers, r)
	r.f.plan.insist()
	r.f.decide()
	return true
}

// from is where the download of a reader that was left behind began.
func (p *position) from() int64 { return p.s.window.onDisk }
