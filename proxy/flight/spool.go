package flight

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/upstream"
)

const (
	// window is how many bytes a download without a disk keeps in memory.
	window = 8 << 20
	// patience is how long a download without a disk waits for its slowest
	// reader before it goes on without it.
	maxReaderWait = 5 * time.Second
)

// spool is where a download's bytes lie for its readers: a draft on disk, and,
// once the disk is full, a window in memory that moves on when the readers have
// read it. Its download alone writes to it.
type spool struct {
	digest   cache.Digest
	draft    cache.Draft     // nil where there never was a disk
	inMemory bool            // there is no disk, or no more: all further bytes go to the window
	verifier digest.Verifier // of content that is not all on disk
	// patient spools wait for their readers without end.
	patient bool

	mu           sync.Mutex
	holders      int   // the download itself, and everyone who may still read
	onDisk       int64 // bytes of the draft that readers may have
	window       memoryWindow
	readers      map[*reader]struct{}
	readersMoved chan struct{} // closed when a reader moves or leaves; nil while nobody waits
}

// newSpool returns a spool that its caller holds. It is opened before anything
// is written.
func newSpool(d cache.Digest) *spool {
	return &spool{digest: d, holders: 1, readers: make(map[*reader]struct{})}
}

// open says where the bytes go: to a draft, or to memory where draft is nil.
func (s *spool) open(draft cache.Draft) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draft = draft; draft == nil {
		s.inMemory, s.verifier = true, s.digest.Verifier()
	}
}

// hold keeps the spool readable until release.
func (s *spool) hold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holders++
}

func (s *spool) release() {
	s.mu.Lock()
	s.holders--
	last := s.holders == 0
	s.wakeWriter()
	s.mu.Unlock()
	if last && s.draft != nil {
		s.draft.Close()
	}
}

// write appends b to the draft, or to the window where there is no disk.
// cache.ErrFull asks the caller to leaveDisk with the same bytes.
func (s *spool) write(ctx context.Context, b []byte) error {
	if s.inMemory {
		return s.push(ctx, b)
	}
	if _, err := s.draft.Write(b); err != nil {
		// Whatever it is that the disk says, the clients come first.
		return fmt.Errorf("%w: %w", cache.ErrFull, err)
	}
	s.mu.Lock()
	s.onDisk += int64(len(b))
	s.mu.Unlock()
	return nil
}

// leaveDisk goes on in memory, beginning with b, of which a part may have
// reached the disk before it was full.
func (s *spool) switchToMemory(ctx context.Context, b []byte) error {
	s.verifier = s.digest.Verifier()
	if _, err := io.Copy(s.verifier, io.NewSectionReader(s.draft, 0, s.onDisk)); err != nil {
		return fmt.Errorf("%w: read the draft back: %w", upstream.ErrUnavailable, err)
	}
	s.mu.Lock()
	s.inMemory = true
	s.window.start, s.window.end = s.onDisk, s.onDisk
	s.mu.Unlock()
	return s.push(ctx, b)
}

// push appends b to the window and makes room before, waiting for readers
// that still need what would go.
func (s *spool) push(ctx context.Context, b []byte) error {
	if _, err := s.verifier.Write(b); err != nil {
		return err
	}
	var tooLong <-chan time.Time
	if !s.patient {
		t := time.NewTimer(maxReaderWait)
		defer t.Stop()
		tooLong = t.C
	}
	for {
		s.mu.Lock()
		pieces, surplus := s.window.surplus(int64(len(b)))
		if surplus > 0 && s.holders == 1 {
			s.mu.Unlock()
			return ErrReaderTooSlow // nothing is kept and nobody reads: what for?
		}
		if surplus == 0 || s.slowest() >= s.window.start+surplus {
			s.window.advance(pieces, surplus, b)
			s.mu.Unlock()
			return nil
		}
		if s.readersMoved == nil {
			s.readersMoved = make(chan struct{})
		}
		moved := s.readersMoved
		s.mu.Unlock()
		select {
		case <-moved:
		case <-tooLong:
			s.dropSlowReaders(surplus)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// leaveBehind gives up the readers that hold up the others.
func (s *spool) dropSlowReaders(surplus int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for r := range s.readers {
		r.dropped = r.dropped || r.off < s.window.start+surplus
	}
}

// slowest is the offset of the reader that is furthest back and not given up.
// A patient spool waits also for the reader that has not come yet. s.mu is held.
func (s *spool) slowest() int64 {
	slowest := int64(math.MaxInt64)
	if s.patient && len(s.readers) == 0 {
		slowest = s.window.start
	}
	for r := range s.readers {
		if !r.dropped {
			slowest = min(slowest, r.off)
		}
	}
	return slowest
}

// verify proves the whole content, wherever it lies.
func (s *spool) verify() error {
	if !s.inMemory {
		return s.draft.Verify()
	}
	if !s.verifier.Verified() {
		return cache.ErrMismatch
	}
	return nil
}

// wakeWriter wakes a writer that waits for readers. s.mu is held.
func (s *spool) wakeWriter() {
	if s.readersMoved != nil {
		close(s.readersMoved)
		s.readersMoved = nil
	}
}

// memoryWindow holds the last bytes of content, in the pieces that came.
type memoryWindow struct {
	start, end int64    // offsets of its first byte, and behind its last
	pieces     [][]byte // none is ever changed
}

// surplus is how much must go before n more bytes fit, in whole pieces and in
// bytes.
func (w *memoryWindow) surplus(n int64) (pieces int, surplus int64) {
	for w.end-w.start-surplus+n > window && pieces < len(w.pieces) {
		surplus += int64(len(w.pieces[pieces]))
		pieces++
	}
	return pieces, surplus
}

// move drops that surplus and appends b.
func (w *memoryWindow) advance(pieces int, surplus int64, b []byte) {
	w.pieces = append(slices.Delete(w.pieces, 0, pieces), bytes.Clone(b))
	w.start += surplus
	w.end += int64(len(b))
}

// at is what there is from off to the end of a piece; nil where the window has
// moved on.
func (w *memoryWindow) at(off int64) []byte {
	start := w.start
	for _, piece := range w.pieces {
		if end := start + int64(len(piece)); off < end {
			if off < start {
				return nil
			}
			return piece[off-start:]
		}
		start += int64(len(piece))
	}
	return nil
}
