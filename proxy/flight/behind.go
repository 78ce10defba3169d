package flight

import (
	"context"
	"hash"
	"slices"
	"time"
)

const (
	// maxHold is how long a further download waits in all for a reader of the
	// one before it that may be left behind yet: longer than that one waits for
	// it itself, see maxLag.
	maxHold = 2 * maxLag
	// holdFor is for how long it waits until it looks again.
	holdFor = 20 * time.Millisecond
)

// behind is where the readers of a spool go that are too slow for its window,
// and those that come too late for it: to a further download of the same
// content, which they share. It begins where they are, with the hash of what is
// before that, so that it proves the whole. It is guarded by the spool's mu.
type behind struct {
	budget *budget
	// begin begins a download after the first from bytes, whose hash is known.
	begin func(from int64, state hash.Hash) *Flight
	begun []*Flight
	// ahead is the spool that this one goes on behind, or nil. Only the writer
	// uses it.
	ahead *spool
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
	b.begun = slices.DeleteFunc(b.begun, func(f *Flight) bool { return !f.spool.isHeld() })
	for _, f := range b.begun {
		if f.spool.isNear(off) {
			return f.take(off)
		}
	}
	f := b.begin(from, state)
	defer f.spool.release()
	b.begun = append(b.begun, f)
	return f.take(off)
}

// awaitThoseAhead waits before a window advances past readers of the download
// before it: they are about to be left behind, and would need a download of
// their own. It returns when n more bytes may come.
func (s *spool) awaitThoseAhead(ctx context.Context, n int64) error {
	for s.behind.ahead != nil {
		s.mu.Lock()
		_, surplus := s.window.surplus(n, s.behind.budget.each())
		edge := s.window.start + surplus
		s.mu.Unlock()
		if surplus == 0 {
			return nil
		}
		held, over := s.behind.ahead.holds(edge)
		if over {
			s.behind.ahead = nil // with what it has in memory
		}
		if !held {
			return nil
		}
		select {
		case <-time.After(holdFor):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// holds says whether a reader that may be left behind needs what is before the
// edge, and whether there are no readers any more.
func (s *spool) holds(edge int64) (held, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for r := range s.readers {
		if !r.dropped && r.off < edge && r.held < maxHold {
			r.held += holdFor
			held = true
		}
	}
	return held, s.holders == 0
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
