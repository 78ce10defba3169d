package disk

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/entrepot/entrepot/cache"
)

// What this process knows of a published file, piece by piece:
//
//	unchecked  not looked at since the start, since the file changed, or for
//	           longer than Options.VerifyEvery
//	checked    it had its checksum when it was read, and the file is the same
//	           since, by inode, size and change time
//	bad        it had another checksum, or could not be read, and nothing makes
//	           it good: the file is set aside. Whoever has it open may go on
//	           with its other pieces
//
// What is checked costs a stat of the open file and no read. What is not is
// read once, however many ask meanwhile, through the kernel's memory, from
// where it is sent right after. Nothing of it outlives the process: what goes
// out first after a start is checked, as it goes.
type checks struct {
	size int64

	mu    sync.Mutex
	sums  sums // nil while there are none; content of one piece needs none
	of    identity
	sound []uint64  // a bit for each piece that is checked
	since time.Time // the first of these was; zero while none is
	bad   map[int64]bool
	gone  bool            // it is bad somewhere
	aside bool            // it was set aside, and nobody was told yet
	turns map[int64]*turn // of the pieces that are being looked at
	proof *proof          // that is under way, of a file without sums
}

// turn is one look at a piece, for all who want it.
type turn struct {
	over  chan struct{}
	sound bool // once it is over
}

// identity tells a file that is what it was when it was checked.
type identity struct {
	inode      uint64
	size       int64
	sec, nanos int64 // of its last change
}

// settled says whether a change of the file after t would show in its change
// time. Kernels stamp by a clock that ticks every 10 ms at the slowest, and
// some file systems keep whole seconds only, or every other one.
func (i identity) settled(t time.Time) bool {
	tick := 20 * time.Millisecond
	if i.nanos == 0 {
		tick = 3 * time.Second
	}
	age := t.Sub(time.Unix(i.sec, i.nanos))
	return age > tick || age < -tick // the stamp of a clock that was wrong is unlike any of now
}

// kept is a published file, open.
type kept struct {
	*blob
	blobs  *blobs
	digest cache.Digest
	path   string
	ahead  atomic.Bool // bytes were passed ahead of the proof

	once   sync.Once
	checks *checks // shared by all who have the file open
}

func (k *kept) state() *checks {
	k.once.Do(func() { k.checks = k.blobs.known.of(k) })
	return k.checks
}

func (k *kept) Check(ctx context.Context, off, n int64) (int64, error) {
	if n = min(n, k.size-off); n <= 0 {
		return 0, nil
	}
	sound, err := k.check(ctx, off, n)
	if err != nil {
		return 0, fmt.Errorf("check %s at %d: %w", k.digest, off, err)
	}
	return sound, nil
}

func (k *kept) check(ctx context.Context, off, n int64) (int64, error) {
	c, piece := k.state(), off/pieceSize
	if passes, err := k.prove(ctx, off, n); passes > 0 || err != nil {
		return passes, err
	}
	for {
		is, err := identify(k.file)
		if err != nil {
			return 0, err
		}
		sound, t, mine := c.begin(is, off, n, k.blobs.verifyEvery)
		switch {
		case sound > 0:
			return sound, nil
		case t == nil:
			err := c.mismatch()
			if k.ahead.Load() && c.withoutSums() {
				err = fmt.Errorf("%w: %w", cache.ErrUnproven, err)
			}
			return 0, err
		case mine:
			err = k.look(piece, is)
			c.end(piece, t, err == nil)
			if err != nil && !errors.Is(err, cache.ErrMismatch) {
				return 0, err
			}
		default:
			select {
			case <-t.over:
			case <-ctx.Done():
				return 0, context.Cause(ctx)
			}
		}
		if t.sound {
			return min(n, pieceSize-off%pieceSize), nil
		}
	}
}

// Doubt makes all pieces unchecked.
func (k *kept) Doubt() {
	c := k.state()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget()
}

func (c *checks) forget() {
	clear(c.sound)
	c.since = time.Time{}
}

// begin returns how many of the n bytes at off are checked, or else the turn at
// the first piece of them, which may be the caller's to take, or nothing where
// that is bad.
func (c *checks) begin(is identity, off, n int64, every time.Duration) (sound int64, t *turn, mine bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := off / pieceSize
	if c.bad[first] || c.gone && c.sums == nil {
		return 0, nil, false
	}
	if is != c.of || time.Since(c.since) >= every {
		c.forget()
		c.of = is
	}
	for piece := first; sound < n && c.sound[piece/64]&(1<<(piece%64)) != 0; piece++ {
		sound = min((piece+1)*pieceSize-off, n)
	}
	if sound > 0 {
		return sound, nil, false
	}
	if t := c.turns[first]; t != nil {
		return 0, t, false
	}
	t = &turn{over: make(chan struct{})}
	if c.turns == nil {
		c.turns = make(map[int64]*turn)
	}
	c.turns[first] = t
	return 0, t, true
}

func (c *checks) end(piece int64, t *turn, sound bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.turns, piece)
	t.sound = sound
	close(t.over)
}

var pieces = sync.Pool{New: func() any { return new([pieceSize]byte) }}

// look reads a piece, and sets the file aside where it is not what it was.
func (k *kept) look(piece int64, is identity) error {
	began := time.Now()
	buffer := pieces.Get().(*[pieceSize]byte)
	defer pieces.Put(buffer)
	content := buffer[:min(pieceSize, k.size-piece*pieceSize)]
	err := k.blobs.faults.refuse(k.blobs.faults.read)
	if err == nil {
		_, err = k.file.ReadAt(content, piece*pieceSize)
	}
	switch {
	case err == nil && k.matches(piece, content):
		k.checks.mark(piece, is, began)
		return nil
	case err == nil, errors.Is(err, io.EOF), unreadable(err):
		k.spoil(piece, err, "offset", piece*pieceSize)
		return cache.ErrMismatch
	}
	return err
}

// matches holds a piece against its checksum, or the only one of content
// against the digest.
func (k *kept) matches(piece int64, content []byte) bool {
	if sumsLength(k.size) == 0 {
		return k.digest.Algorithm().FromBytes(content) == k.digest
	}
	return crc32.Checksum(content, castagnoli) == k.checks.sums[piece]
}

// mark notes that a piece was found sound in a look that began at a time.
func (c *checks) mark(piece int64, is identity, began time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if is != c.of || !is.settled(began) {
		return // it may change without a sign
	}
	if c.since.IsZero() {
		c.since = began
	}
	c.sound[piece/64] |= 1 << (piece % 64)
}

// spoil sets the file aside for a piece that is bad.
func (k *kept) spoil(piece int64, failed error, why ...any) {
	if failed != nil {
		why = append(why, "error", failed)
	}
	found, err := k.file.Stat()
	aside := err == nil && k.blobs.setAside(k.digest, k.path, found, why...)
	k.blobs.known.drop(k.digest, k.checks)
	c := k.checks
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bad == nil {
		c.bad = make(map[int64]bool)
	}
	c.bad[piece] = true
	c.gone, c.aside = true, c.aside || aside
}

// mismatch is what is said of a bad piece.
func (c *checks) mismatch() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.aside {
		c.aside = false
		return fmt.Errorf("%w: %w", cache.ErrSetAside, cache.ErrMismatch)
	}
	return cache.ErrMismatch
}

// withoutSums says that nothing tells where a file is bad.
func (c *checks) withoutSums() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sums == nil
}

// unreadable says whether a disk or a file system can't give back what it was
// given: that is damage too.
func unreadable(err error) bool {
	for _, lost := range lostErrors {
		if errors.Is(err, lost) {
			return true
		}
	}
	return false
}
