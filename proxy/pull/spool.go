package pull

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
	// window is how many bytes a flight without a disk keeps in memory.
	window = 8 << 20
	// patience is how long a flight without a disk waits for its slowest
	// reader before it goes on without it.
	patience = 5 * time.Second
)

// spool is where a flight's bytes lie for its readers: a draft on disk, and,
// once the disk is full, a window in memory that moves on when the readers
// have passed.
type spool struct {
	digest Digest
	draft  cache.Draft // nil where the flight never had a disk
	// patient spools wait for their readers without end.
	patient bool

	mu      sync.Mutex
	holders int             // the flight itself, and everyone who may still read
	onDisk  int64           // bytes of the draft that readers may have; grows until the disk is left
	left    bool            // the disk is left: all further bytes go to the window
	base    int64           // offset of the window's first byte
	end     int64           // offset behind its last byte
	tail    [][]byte        // the window, in the pieces that were pushed; none is ever changed
	proof   digest.Verifier // of a spool that has left the disk
	readers map[*reader]struct{}
	moved   chan struct{} // closed when a reader moves or leaves; nil while nobody waits
}

// newSpool returns a spool over a draft, or one in memory where draft is nil.
// The caller holds it.
func newSpool(d Digest, draft cache.Draft) *spool {
	s := &spool{digest: d, draft: draft, holders: 1, readers: make(map[*reader]struct{})}
	if draft == nil {
		s.left, s.proof = true, d.Verifier()
	}
	return s
}

// exchange gives a spool that nothing was written to another draft, or none.
func (s *spool) exchange(draft cache.Draft) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draft.Close()
	if s.draft = draft; draft == nil {
		s.left, s.proof = true, s.digest.Verifier()
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
	s.signal()
	s.mu.Unlock()
	if last && s.draft != nil {
		s.draft.Close()
	}
}

// write appends b to the draft, or to the window once the disk is left.
// cache.ErrFull asks the caller to leaveDisk with the same bytes.
func (s *spool) write(ctx context.Context, b []byte) error {
	if s.left {
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
func (s *spool) leaveDisk(ctx context.Context, d Digest, b []byte) error {
	s.proof = d.Verifier()
	if _, err := io.Copy(s.proof, io.NewSectionReader(s.draft, 0, s.onDisk)); err != nil {
		return fmt.Errorf("%w: read the draft back: %w", upstream.ErrUnavailable, err)
	}
	s.mu.Lock()
	s.left, s.base, s.end = true, s.onDisk, s.onDisk
	s.mu.Unlock()
	return s.push(ctx, b)
}

// push appends b to the window and makes room before, waiting for readers
// that still need what would go.
func (s *spool) push(ctx context.Context, b []byte) error {
	if _, err := s.proof.Write(b); err != nil {
		return err
	}
	var tooLong <-chan time.Time
	if !s.patient {
		t := time.NewTimer(patience)
		defer t.Stop()
		tooLong = t.C
	}
	for {
		s.mu.Lock()
		pieces, over := s.surplus(int64(len(b)))
		if over > 0 && s.holders == 1 {
			s.mu.Unlock()
			return errLost // nothing is kept and nobody reads: what for?
		}
		if over == 0 || s.slowest() >= s.base+over {
			s.tail = append(slices.Delete(s.tail, 0, pieces), bytes.Clone(b))
			s.base += over
			s.end += int64(len(b))
			s.mu.Unlock()
			return nil
		}
		if s.moved == nil {
			s.moved = make(chan struct{})
		}
		moved := s.moved
		s.mu.Unlock()
		select {
		case <-moved:
		case <-tooLong:
			s.leaveBehind(over)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// leaveBehind gives up the readers that hold up the others.
func (s *spool) leaveBehind(over int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for r := range s.readers {
		r.behind = r.behind || r.off < s.base+over
	}
}

// surplus is how much of the window must go before n more bytes fit, in whole
// pieces and in bytes. s.mu is held.
func (s *spool) surplus(n int64) (pieces int, over int64) {
	for s.end-s.base-over+n > window && pieces < len(s.tail) {
		over += int64(len(s.tail[pieces]))
		pieces++
	}
	return pieces, over
}

// slowest is the offset of the reader that is furthest back and not given up.
// s.mu is held.
func (s *spool) slowest() int64 {
	slowest := int64(math.MaxInt64)
	for r := range s.readers {
		if !r.behind {
			slowest = min(slowest, r.off)
		}
	}
	return slowest
}

// verify proves the whole content, wherever it lies.
func (s *spool) verify() error {
	if !s.left {
		return s.draft.Verify()
	}
	if !s.proof.Verified() {
		return cache.ErrMismatch
	}
	return nil
}

// commit publishes the draft where it holds everything.
func (s *spool) commit() error {
	if s.left {
		return nil
	}
	return s.draft.Commit()
}

// reader is one client's place in a spool. It is used by one goroutine.
type reader struct {
	s      *spool
	off    int64 // guarded by s.mu
	behind bool  // given up by the writer; guarded by s.mu
	file   cache.Blob
	pos    int64 // of file
}

// reader opens a place at off. The caller holds the spool.
func (s *spool) reader(off int64) *reader {
	r := &reader{s: s, off: off}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readers[r] = struct{}{}
	return r
}

// next writes at most n of the bytes at the reader's place to w. The caller
// knows that they are there.
func (r *reader) next(w io.Writer, n int64) (int64, error) {
	r.s.mu.Lock()
	onDisk, off := r.s.onDisk, r.off
	var piece []byte
	if off >= onDisk {
		piece = r.s.at(off)
		if piece == nil {
			r.s.mu.Unlock()
			return 0, errLost
		}
		piece = piece[:min(n, int64(len(piece)))]
	}
	r.s.mu.Unlock()

	var written int64
	var err error
	if piece != nil {
		var wrote int
		wrote, err = w.Write(piece)
		written = int64(wrote)
	} else {
		written, err = r.fromDisk(w, off, min(n, onDisk-off))
	}
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.off += written
	r.s.signal()
	return written, err
}

// at is what the window holds from off to the end of a piece; nil where the
// window has moved on. s.mu is held.
func (s *spool) at(off int64) []byte {
	start := s.base
	for _, piece := range s.tail {
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

func (r *reader) fromDisk(w io.Writer, off, n int64) (int64, error) {
	if r.file == nil {
		file, err := r.s.draft.Reader()
		if err != nil {
			return 0, fmt.Errorf("%w: read the draft: %w", upstream.ErrUnavailable, err)
		}
		r.file = file
	}
	return copyFrom(w, r.file, &r.pos, off, n)
}

// copyFrom copies n bytes at off, seeking only where the file stands elsewhere,
// in a shape that lets w hand the work to the kernel.
func copyFrom(w io.Writer, file cache.Blob, pos *int64, off, n int64) (int64, error) {
	if *pos != off {
		if _, err := file.Seek(off, io.SeekStart); err != nil {
			return 0, err
		}
		*pos = off
	}
	written, err := io.Copy(w, &io.LimitedReader{R: file, N: n})
	*pos += written
	if err == nil && written < n {
		err = io.ErrUnexpectedEOF
	}
	return written, err
}

func (r *reader) close() error {
	r.s.mu.Lock()
	delete(r.s.readers, r)
	r.s.signal()
	r.s.mu.Unlock()
	if r.file != nil {
		return r.file.Close()
	}
	return nil
}

// signal wakes a writer that waits for readers. s.mu is held.
func (s *spool) signal() {
	if s.moved != nil {
		close(s.moved)
		s.moved = nil
	}
}
