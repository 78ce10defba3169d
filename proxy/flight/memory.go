package flight

import (
	"bytes"
	"context"
	"fmt"
	"hash"
	"slices"
	"sync/atomic"
	"time"
)

const (
	// window is how many bytes a download without disk space holds in memory at
	// most, minWindow how many it holds in any case, and memoryBudget what all
	// of them share.
	window       = 8 << 20
	minWindow    = 512 << 10
	memoryBudget = 64 << 20
	// maxLag is how long the writer waits in all for a reader that is slower
	// than others, so that what merely stumbles stays with them.
	maxLag = time.Second
	// maxReaderWait is how long the writer waits for a reader to arrive, and how
	// long a patient writer waits for one that reads nothing at all.
	maxReaderWait = 5 * time.Second
)

// budget is what the windows of a group share.
type budget struct{ windows atomic.Int64 }

func (b *budget) add(n int64) {
	if b != nil {
		b.windows.Add(n)
	}
}

// each is how many bytes one window may hold.
func (b *budget) each() int64 {
	if b == nil {
		return window
	}
	return min(max(memoryBudget/max(b.windows.Load(), 1), minWindow), window)
}

// memoryWindow holds the last bytes of content, in the pieces in which they
// arrived. It goes on at the pace of the fastest reader. Whoever is too slow for
// it is left behind: all of those share one further download, which waits for
// them.
type memoryWindow struct {
	onDisk     int64 // bytes before it that are in the draft
	start, end int64 // offsets of the first byte and after the last one
	pieces     []piece
	hash       hash.Hash // of all that has come
	// whole means that nobody may read before all of it is there, which is
	// little.
	whole bool
}

// piece is a part of a window. It is never modified.
type piece struct {
	bytes  []byte
	before hash.Hash // of what comes before it
}

// toMemory continues after the first n bytes, whose hash is known. s.mu is held.
func (s *spool) toMemory(n int64, state hash.Hash) {
	s.inMemory = true
	s.behind.budget.add(1)
	s.window.onDisk, s.window.start, s.window.end, s.window.hash = n, n, n, state
}

// push appends b to the window. It makes room for it first, and waits for
// readers that still need what it would drop. It may give r's place to others
// meanwhile.
func (s *spool) push(ctx context.Context, r *request, b []byte) error {
	if err := s.awaitThoseAhead(ctx, int64(len(b))); err != nil {
		return err
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	begins := time.Now()
	defer func() { r.place.waited += time.Since(begins) }()
	for arrived := time.Now().Add(maxReaderWait); ; {
		s.mu.Lock()
		pieces, surplus := s.window.surplus(int64(len(b)), s.behind.budget.each())
		if surplus == 0 {
			defer s.mu.Unlock()
			return s.window.advance(0, 0, b)
		}
		lagging, others, patience := s.lagging(s.window.start + surplus)
		if half := (s.window.end - s.window.start) / 2; r.place.yielded {
			// The next request is worth its while when a reader has got there.
			if all, ahead, most := s.lagging(s.window.start + half); len(all) > 0 && !ahead {
				lagging, others, patience = all, ahead, most
			}
		}
		nobody := len(s.readers) == s.countDropped()
		switch {
		case s.holders == 1, nobody && !s.patient && !time.Now().Before(arrived):
			s.mu.Unlock()
			return ErrReaderTooSlow // nothing is stored and nobody reads
		case nobody:
			patience = time.Until(arrived)
		case len(lagging) == 0:
			defer s.mu.Unlock()
			return s.window.advance(pieces, surplus, b)
		case patience <= 0:
			s.leaveBehind(lagging)
			s.mu.Unlock()
			continue
		}
		if s.readersMoved == nil {
			s.readersMoved = make(chan struct{})
		}
		moved := s.readersMoved
		s.mu.Unlock()
		began := time.Now()
		if r.place.holds() {
			r.place.yield(began.Sub(begins))
			patience = min(patience, yieldAfter)
		}
		timer.Reset(max(patience, time.Millisecond))
		select {
		case <-moved:
		case <-timer.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if others {
			s.waited(lagging, time.Since(began))
		}
	}
}

// lagging are the readers that need what is before the edge, and how long the
// writer may still wait for them. If there are no others it waits as long as
// they want: the others of them can read on. s.mu is held.
func (s *spool) lagging(edge int64) (all []*position, others bool, patience time.Duration) {
	patience = maxReaderWait
	for r := range s.readers {
		switch {
		case r.dropped:
		case r.off >= edge:
			others = true
		default:
			limit := maxLag
			if s.patient {
				limit = maxReaderWait
			}
			all, patience = append(all, r), min(patience, limit-r.waited)
		}
	}
	if !others {
		patience = time.Hour
	}
	return all, others, patience
}

func (s *spool) countDropped() (n int) {
	for r := range s.readers {
		if r.dropped {
			n++
		}
	}
	return n
}

// waited notes for how long the writer has waited for readers.
func (s *spool) waited(lagging []*position, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range lagging {
		r.waited += d
		if s.patient && r.off != r.waitedAt {
			r.waited = 0 // it reads
		}
		r.waitedAt = r.off
	}
}

// surplus is how much must be dropped before n more bytes fit, in whole pieces
// and in bytes.
func (w *memoryWindow) surplus(n, most int64) (pieces int, surplus int64) {
	if w.whole {
		most = window
	}
	for w.end-w.start-surplus+n > most && pieces < len(w.pieces) {
		surplus += int64(len(w.pieces[pieces].bytes))
		pieces++
	}
	return pieces, surplus
}

// advance drops that surplus and appends b.
func (w *memoryWindow) advance(pieces int, surplus int64, b []byte) error {
	state, err := cloneHash(w.hash)
	if err != nil {
		return err
	}
	w.pieces = append(slices.Delete(w.pieces, 0, pieces), piece{bytes.Clone(b), state})
	w.hash.Write(b)
	w.start += surplus
	w.end += int64(len(b))
	return nil
}

// hashAtStart is the hash of everything before the window.
func (w *memoryWindow) hashAtStart() (hash.Hash, error) {
	if len(w.pieces) == 0 {
		return cloneHash(w.hash)
	}
	return cloneHash(w.pieces[0].before)
}

func cloneHash(h hash.Hash) (hash.Hash, error) {
	cloner, ok := h.(hash.Cloner)
	if !ok {
		return nil, fmt.Errorf("the state of a %T can't be copied", h)
	}
	return cloner.Clone()
}

// at returns the bytes from off to the end of a piece, or nil if the window has
// advanced past off.
func (w *memoryWindow) at(off int64) []byte {
	start := w.start
	for _, piece := range w.pieces {
		if end := start + int64(len(piece.bytes)); off < end {
			if off < start {
				return nil
			}
			return piece.bytes[off-start:]
		}
		start += int64(len(piece.bytes))
	}
	return nil
}
