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
	"github.com/entrepot/entrepot/cache/disk/files"
)

// checks is what this process knows of a published file, piece by piece:
//
//	unchecked  not read since the start, since the file changed, or for longer
//	           than Options.VerifyEvery
//	checked    its checksum matched when it was read, and the file is the same
//	           since then, by inode, size and change time
//	bad        its checksum did not match, or it could not be read: the file is
//	           quarantined. Readers that have it open can still read its other
//	           pieces
//
// A checked piece costs a stat of the open file and no read. An unchecked piece
// is read once, no matter how many callers wait for it, through the page cache,
// from which it is sent right afterwards. The state is lost with the process:
// after a start every piece is checked again when it is first sent.
type checks struct {
	size int64

	mu         sync.Mutex
	sums       sums // nil if there are none; content of one piece needs none
	identity   files.Identity
	checked    []uint64  // a bit for each piece
	since      time.Time // when the first of these was checked; zero if none is
	bad        map[int64]bool
	damaged    bool                  // a piece is bad
	unreported bool                  // it was quarantined, and no caller has got ErrQuarantined yet
	running    map[int64]*pieceCheck // the checks in progress, by piece
	resident   []uint64              // a bit for each checked piece that was in the page cache
	recently   time.Time             // since when the first of these was
	proof      *proof                // in progress, of a file without sums
}

// pieceCheck is one check of a piece, for all callers that wait for it.
type pieceCheck struct {
	done  chan struct{}
	sound bool // valid once done is closed
}

// settled reports whether a change of a file after t would change its change
// time. Kernels use a clock with ticks of up to 10 ms, and some file systems
// only store whole or even seconds.
func settled(i files.Identity, t time.Time) bool {
	tick := 20 * time.Millisecond
	if i.Nanos == 0 {
		tick = 3 * time.Second
	}
	age := t.Sub(time.Unix(i.Seconds, i.Nanos))
	return age > tick || age < -tick // a time in the future, from a wrong clock, differs from any new one
}

// publishedBlob is an open published file.
type publishedBlob struct {
	*blob
	blobs        *blobs
	digest       cache.Digest
	path         string
	sentUnproven atomic.Bool // bytes were sent before all was verified

	once   sync.Once
	checks *checks                // shared by all readers of the file
	loaded atomic.Pointer[checks] // the same
}

func (k *publishedBlob) loadChecks() *checks {
	k.once.Do(func() {
		k.checks = k.blobs.checks.load(k)
		k.loaded.Store(k.checks)
	})
	return k.checks
}

// useChecks is loadChecks where they are known.
func (k *publishedBlob) useChecks(c *checks) {
	k.once.Do(func() {
		k.checks = c
		k.loaded.Store(c)
	})
}

func (k *publishedBlob) Check(ctx context.Context, off, n int64) (int64, error) {
	if n = min(n, k.size-off); n <= 0 {
		return 0, nil
	}
	sound, err := k.check(ctx, off, n)
	if err != nil {
		return 0, fmt.Errorf("check %s at %d: %w", k.digest, off, err)
	}
	return sound, nil
}

// checkedAlready returns how many of the n bytes at off are checked, if this is
// what the file has. It reads nothing.
func (k *publishedBlob) checkedAlready(is files.Identity, off, n int64) int64 {
	c := k.loaded.Load()
	if c == nil {
		return 0
	}
	if n = min(n, k.size-off); n <= 0 {
		return 0
	}
	return c.checkedAlready(is, off, n, k.blobs.verifyEvery)
}

func (c *checks) checkedAlready(is files.Identity, off, n int64, every time.Duration) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.proof != nil || c.damaged && c.sums == nil || is != c.identity || time.Since(c.since) >= every {
		return 0
	}
	return c.soundAt(off, n)
}

// soundAt returns how many of the n bytes at off are in pieces that are checked.
// c.mu is held.
func (c *checks) soundAt(off, n int64) (sound int64) {
	for piece := off / pieceSize; sound < n && !c.bad[piece] && c.checked[piece/64]&(1<<(piece%64)) != 0; piece++ {
		sound = min((piece+1)*pieceSize-off, n)
	}
	return sound
}

func (k *publishedBlob) check(ctx context.Context, off, n int64) (int64, error) {
	c, piece := k.loadChecks(), off/pieceSize
	if passes, err := k.waitForProof(ctx, off, n); passes > 0 || err != nil {
		return passes, err
	}
	for {
		is, err := k.file.Identify()
		if isReadDamage(err) {
			k.markDamaged(piece, err)
			return 0, c.mismatch()
		}
		if err != nil {
			return 0, err
		}
		sound, t, mine := c.begin(is, off, n, k.blobs.verifyEvery)
		switch {
		case sound > 0:
			return sound, nil
		case t == nil:
			err := c.mismatch()
			if k.sentUnproven.Load() && c.lacksSums() {
				err = fmt.Errorf("%w: %w", cache.ErrUnproven, err)
			}
			return 0, err
		case mine:
			err = k.checkPiece(piece, is)
			c.end(piece, t, err == nil)
			if err != nil && !errors.Is(err, cache.ErrMismatch) {
				return 0, err
			}
		default:
			select {
			case <-t.done:
			case <-ctx.Done():
				return 0, context.Cause(ctx)
			}
		}
		if t.sound {
			return min(n, pieceSize-off%pieceSize), nil
		}
	}
}

// InvalidateChecks marks all pieces as unchecked.
func (k *publishedBlob) InvalidateChecks() {
	c := k.loadChecks()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clear()
}

// residentFor is how long a piece that is sent is taken to stay in the page
// cache. The kernel drops first what nobody reads.
const residentFor = 10 * time.Second

// isResident reports whether the piece at off can be sent without asking the
// disk, as far as the kernel tells.
func (k *publishedBlob) isResident(off int64) bool {
	c, piece := k.loaded.Load(), off/pieceSize
	if c.wasResident(piece) {
		return true
	}
	from := piece * pieceSize
	if !k.file.IsResident(from, min(pieceSize, k.size-from)) {
		return false
	}
	c.markResident(piece)
	return true
}

func (c *checks) wasResident(piece int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.recently) >= residentFor {
		c.recently = time.Now()
		clear(c.resident)
	}
	return c.resident[piece/64]&(1<<(piece%64)) != 0
}

func (c *checks) markResident(piece int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resident[piece/64] |= 1 << (piece % 64)
}

// fetch reads the piece at off, so that it is in the page cache.
func (k *publishedBlob) fetch(off int64) error {
	buffer := pieces.Get().(*[pieceSize]byte)
	defer pieces.Put(buffer)
	from := off / pieceSize * pieceSize
	_, err := k.file.ReadAt(buffer[:min(pieceSize, k.size-from)], from)
	return wrapUnreadable(err)
}

func (c *checks) clear() {
	clear(c.checked)
	c.since = time.Time{}
}

// begin returns how many of the n bytes at off are checked. If the first piece
// of them is not, it returns the check of it, and whether the caller has to do
// that. If the piece is bad, it returns nothing.
func (c *checks) begin(is files.Identity, off, n int64, every time.Duration) (sound int64, t *pieceCheck, mine bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := off / pieceSize
	if c.bad[first] || c.damaged && c.sums == nil {
		return 0, nil, false
	}
	if is != c.identity || time.Since(c.since) >= every {
		c.clear()
		c.identity = is
	}
	if sound = c.soundAt(off, n); sound > 0 {
		return sound, nil, false
	}
	if t := c.running[first]; t != nil {
		return 0, t, false
	}
	t = &pieceCheck{done: make(chan struct{})}
	if c.running == nil {
		c.running = make(map[int64]*pieceCheck)
	}
	c.running[first] = t
	return 0, t, true
}

func (c *checks) end(piece int64, t *pieceCheck, sound bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.running, piece)
	t.sound = sound
	close(t.done)
}

var pieces = sync.Pool{New: func() any { return new([pieceSize]byte) }}

// checkPiece reads a piece, and quarantines the file if the piece is damaged.
func (k *publishedBlob) checkPiece(piece int64, is files.Identity) error {
	began := time.Now()
	buffer := pieces.Get().(*[pieceSize]byte)
	defer pieces.Put(buffer)
	content := buffer[:min(pieceSize, k.size-piece*pieceSize)]
	err := k.blobs.faults.inject(k.blobs.faults.read)
	if err == nil {
		_, err = k.file.ReadAt(content, piece*pieceSize)
	}
	switch {
	case err == nil && k.matches(piece, content):
		k.checks.markChecked(piece, is, began)
		return nil
	case err == nil, errors.Is(err, io.EOF), isReadDamage(err):
		k.markDamaged(piece, err, "offset", piece*pieceSize)
		return cache.ErrMismatch
	}
	return err
}

// matches compares a piece with its checksum, or with the digest if it is the
// only one.
func (k *publishedBlob) matches(piece int64, content []byte) bool {
	if sumsLength(k.size) == 0 {
		return k.digest.Algorithm().FromBytes(content) == k.digest
	}
	return crc32.Checksum(content, castagnoli) == k.checks.sums[piece]
}

// markChecked records that a check, which began at a given time, found a piece
// undamaged.
func (c *checks) markChecked(piece int64, is files.Identity, began time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if is != c.identity || !settled(is, began) {
		return // a change could go unnoticed
	}
	if c.since.IsZero() {
		c.since = began
	}
	c.checked[piece/64] |= 1 << (piece % 64)
}

// markDamaged quarantines the file because a piece is bad.
func (k *publishedBlob) markDamaged(piece int64, failed error, why ...any) {
	if failed != nil {
		why = append(why, "error", failed)
	}
	found, err := k.file.Stat()
	quarantined := err == nil && k.blobs.quarantine(k.digest, k.path, found, why...)
	k.blobs.checks.remove(k.digest, k.checks)
	c := k.checks
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bad == nil {
		c.bad = make(map[int64]bool)
	}
	c.bad[piece] = true
	c.damaged, c.unreported = true, c.unreported || quarantined
}

// mismatch returns the error for a bad piece.
func (c *checks) mismatch() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unreported {
		c.unreported = false
		return fmt.Errorf("%w: %w", cache.ErrQuarantined, cache.ErrMismatch)
	}
	return cache.ErrMismatch
}

// lacksSums reports whether there are no checksums that show which piece is bad.
func (c *checks) lacksSums() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sums == nil
}

// wrapUnreadable adds cache.ErrUnreadable to the errors of a disk or file system
// that can't return what was written.
func wrapUnreadable(err error) error {
	if err != nil && isReadDamage(err) {
		return fmt.Errorf("%w: %w", cache.ErrUnreadable, err)
	}
	return err
}

// isReadDamage reports whether a disk or file system can't return what was
// written. That counts as damage.
func isReadDamage(err error) bool {
	for _, lost := range damageErrors {
		if errors.Is(err, lost) {
			return true
		}
	}
	return false
}
