package flight

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
)

const (
	// window is how many bytes a download without disk space holds in memory.
	window = 8 << 20
	// maxReaderWait is how long a download without disk space waits for its
	// slowest reader before it continues without it.
	maxReaderWait = 5 * time.Second
	// hashSize is how many bytes of pieces are hashed at once, when the prefix
	// has reached them.
	hashSize = 1 << 20
)

// spool holds a download's bytes for its readers: in a draft on disk, or, when
// the disk is full, in a window in memory that advances when the readers have
// read it. Only the download writes to it.
type spool struct {
	digest   cache.Digest
	draft    cache.Draft     // nil if there never was disk space
	resumed  bool            // the draft was kept by an earlier download: it is checked before it is read
	verifier digest.Verifier // of content that is not entirely on disk
	// patient means that the writer waits for its reader without a limit.
	patient bool
	// prefix is held while the prefix of the draft grows.
	prefix sync.Mutex

	mu           sync.Mutex
	holders      int  // the download, and everyone who may still read
	inMemory     bool // there is no disk space, or no more: all further bytes go to the window
	window       memoryWindow
	readers      map[*position]struct{}
	readersMoved chan struct{} // closed when a reader advances or leaves; nil while nobody waits
}

// newSpool returns a spool that is held by the caller. It must be opened before
// anything is written.
func newSpool(d cache.Digest) *spool {
	return &spool{digest: d, holders: 1, readers: make(map[*position]struct{})}
}

func (s *spool) isInMemory() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inMemory
}

// isHeld says whether anyone but the download may read.
func (s *spool) isHeld() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.holders > 1
}

// isUsable says whether there is a draft with all that was received.
func (s *spool) isUsable() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draft != nil && !s.inMemory
}

// check is how many of the n bytes at off may be read, and whether some turned
// out to be lost.
func (s *spool) check(off, n int64) (sound int64, lost bool) {
	if !s.resumed {
		return n, false
	}
	if s.isInMemory() {
		s.mu.Lock()
		onDisk := s.window.onDisk
		s.mu.Unlock()
		if off >= onDisk {
			return n, false
		}
	}
	sound = s.draft.Check(off, n)
	return sound, sound == 0
}

// open says where the bytes go: to a draft, or to memory if draft is nil.
func (s *spool) open(draft cache.Draft) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draft = draft; draft == nil {
		s.inMemory, s.verifier = true, s.digest.Verifier()
	}
}

// hold keeps the spool readable until release is called.
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

// write writes b at off: to the draft, or to the window if there is no disk
// space. If it returns cache.ErrFull, the caller calls switchToMemory.
func (s *spool) write(ctx context.Context, off int64, b []byte) error {
	if s.isInMemory() {
		if !s.isNext(off) {
			return errNoRoom
		}
		return s.push(ctx, b)
	}
	if err := s.writeDraft(off, b); err != nil && !errors.Is(err, cache.ErrMismatch) {
		// Whatever the error of the disk is, the clients come first.
		return fmt.Errorf("%w: %w", cache.ErrFull, err)
	} else if err != nil {
		return err
	}
	return nil
}

// isNext says whether the window ends at off.
func (s *spool) isNext(off int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.window.end == off
}

// dropPieces drops what is not hashed yet.
func (s *spool) dropPieces() {
	s.prefix.Lock()
	defer s.prefix.Unlock()
	s.draft.Drop(s.draft.Written())
}

func (s *spool) writeDraft(off int64, b []byte) error {
	if s.prefix.TryLock() {
		if s.draft.Written() == off {
			defer s.prefix.Unlock()
			_, err := s.draft.Write(b)
			return err
		}
		s.prefix.Unlock()
	}
	_, err := s.draft.WriteAt(b, off)
	return err
}

// advance hashes what follows the prefix, and returns how much; 0 if there is
// nothing. It returns cache.ErrMismatch if that is damaged.
func (s *spool) advance() (int, error) {
	s.prefix.Lock()
	defer s.prefix.Unlock()
	return s.draft.Advance(hashSize)
}

// hashed is the length of the prefix that is hashed. In memory everything is.
func (s *spool) hashed() int64 {
	if !s.isUsable() {
		return math.MaxInt64
	}
	return s.draft.Written()
}

// switchToMemory continues in memory, after the first n bytes, which are on disk,
// or after fewer, if some that are not hashed yet can't be read back. It returns
// after how many.
func (s *spool) switchToMemory(n int64) (int64, error) {
	prefix, hashed, err := s.draft.Prefix()
	if err != nil {
		return 0, err
	}
	verifier := hashVerifier{prefix, s.digest}
	if hashed > n { // a part of what was received last reached the disk
		verifier.Reset()
		hashed = 0
	}
	read, err := io.Copy(verifier, io.NewSectionReader(s.draft, hashed, n-hashed))
	if err != nil {
		n = hashed + read // the rest is received again
	}
	s.verifier = verifier
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inMemory = true
	s.window.onDisk, s.window.start, s.window.end = n, n, n
	return n, nil
}

// hashVerifier verifies content by a hash that has begun.
type hashVerifier struct {
	hash.Hash
	want cache.Digest
}

func (v hashVerifier) Verified() bool { return digest.NewDigest(v.want.Algorithm(), v.Hash) == v.want }

// push appends b to the window. It makes room for it first, and waits for
// readers that still need what it would drop.
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
			return ErrReaderTooSlow // nothing is stored and nobody reads
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

// dropSlowReaders gives up the readers that hold up the others.
func (s *spool) dropSlowReaders(surplus int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for r := range s.readers {
		r.dropped = r.dropped || r.off < s.window.start+surplus
	}
}

// slowest is the offset of the slowest reader that was not given up. A patient
// spool also waits for a reader that has not arrived yet. s.mu is held.
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

// verify verifies the whole content, wherever it is.
func (s *spool) verify() error {
	if !s.isInMemory() {
		return s.draft.Verify()
	}
	if !s.verifier.Verified() {
		return cache.ErrMismatch
	}
	return nil
}

// wakeWriter wakes the writer if it waits for readers. s.mu is held.
func (s *spool) wakeWriter() {
	if s.readersMoved != nil {
		close(s.readersMoved)
		s.readersMoved = nil
	}
}

// memoryWindow holds the last bytes of content, in the pieces in which they
// arrived.
type memoryWindow struct {
	onDisk     int64    // bytes before it that are in the draft
	start, end int64    // offsets of the first byte and after the last one
	pieces     [][]byte // never modified
}

// surplus is how much must be dropped before n more bytes fit, in whole pieces
// and in bytes.
func (w *memoryWindow) surplus(n int64) (pieces int, surplus int64) {
	for w.end-w.start-surplus+n > window && pieces < len(w.pieces) {
		surplus += int64(len(w.pieces[pieces]))
		pieces++
	}
	return pieces, surplus
}

// advance drops that surplus and appends b.
func (w *memoryWindow) advance(pieces int, surplus int64, b []byte) {
	w.pieces = append(slices.Delete(w.pieces, 0, pieces), bytes.Clone(b))
	w.start += surplus
	w.end += int64(len(b))
}

// at returns the bytes from off to the end of a piece, or nil if the window has
// advanced past off.
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
