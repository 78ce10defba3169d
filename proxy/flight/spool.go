package flight

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
)

// hashSize is how many bytes of pieces are hashed at once, when the prefix has
// reached them.
const hashSize = 1 << 20

// spool holds a download's bytes for its readers: in a draft on disk, or, when
// the disk is full, in a window in memory; see memoryWindow. Only the download
// writes to it.
type spool struct {
	digest  cache.Digest
	draft   cache.Draft // nil if there never was disk space
	resumed bool        // the draft was kept by an earlier download: it is checked before it is read
	// patient means that the writer waits for its readers as long as they read.
	patient bool
	behind  behind // where readers go that are too slow for the window
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
		s.toMemory(0, s.digest.Algorithm().Hash())
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
	if last && s.inMemory {
		s.behind.budget.add(-1)
	}
	s.mu.Unlock()
	if last && s.draft != nil {
		s.draft.Close()
	}
}

// write writes b, which r has received: to the draft, or to the window if there
// is no disk space. If it returns cache.ErrFull, the caller calls switchToMemory.
func (s *spool) write(ctx context.Context, r *request, b []byte) error {
	if s.isInMemory() {
		if !s.isNext(r.at) {
			return errNoRoom
		}
		return s.push(ctx, r, b)
	}
	if err := s.writeDraft(r.at, b); err != nil && !errors.Is(err, cache.ErrMismatch) {
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
	state, hashed, err := s.draft.Prefix()
	if err != nil {
		return 0, err
	}
	if hashed > n { // a part of what was received last reached the disk
		state.Reset()
		hashed = 0
	}
	read, err := io.Copy(state, io.NewSectionReader(s.draft, hashed, n-hashed))
	if err != nil {
		n = hashed + read // the rest is received again
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.toMemory(n, state)
	return n, nil
}

// verify verifies the whole content, wherever it is.
func (s *spool) verify() error {
	if !s.isInMemory() {
		return s.draft.Verify()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if digest.NewDigest(s.digest.Algorithm(), s.window.hash) != s.digest {
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
