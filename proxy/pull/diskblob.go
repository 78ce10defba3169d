package pull

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/flight"
)

// diskBlob is a cached blob on disk. Each piece is verified before it is sent;
// see repair for pieces that are damaged.
type diskBlob struct {
	p      *Puller
	u      Upstream
	repo   Repository
	digest Digest
	file   cache.PublishedBlob
	cursor cache.Cursor // over file
	seed   *flight.Seed // the file, shared with the downloads that begin with it
	// refetch means that the blob must be downloaded even though a file is
	// there: it may be the file that was found damaged.
	refetch  bool
	repaired bool
	passed   bool // some of it came from the upstream while the disk was down
}

func newDiskBlob(p *Puller, u Upstream, repo Repository, d Digest, file cache.PublishedBlob) *diskBlob {
	p.diskReaders.add(d, 1)
	return &diskBlob{p: p, u: u, repo: repo, digest: d, file: file, cursor: cache.NewCursor(file), seed: flight.NewSeed(file)}
}

// diskReaders counts the clients that are being served from files, by digest. A
// request that finds no file while another is still reading one has come after
// the file was quarantined and before it is repaired.
type diskReaders struct {
	mu    sync.Mutex
	count map[Digest]int
}

func (s *diskReaders) add(d Digest, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count[d] += n; s.count[d] == 0 {
		delete(s.count, d)
	}
}

func (s *diskReaders) any(d Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count[d] > 0
}

func (b *diskBlob) Digest() Digest { return b.digest }
func (b *diskBlob) Size() int64    { return b.file.Size() }

func (b *diskBlob) Close() error {
	b.p.diskReaders.add(b.digest, -1)
	return b.seed.Close()
}

func (b *diskBlob) Outcome() Outcome {
	switch {
	case b.repaired:
		return Repaired
	case b.passed:
		return PassedThrough
	}
	return Hit
}

// checkAhead is how many bytes are checked at once before they are sent, if they
// are known: a check that has to ask the disk is handed to a goroutine that the
// client can leave.
// checkHolds is for how long that counts. A client that reads slowly has the disk
// asked again for each of its pieces.
const (
	checkAhead = 4 * pieceSize
	checkHolds = time.Second
)

func (b *diskBlob) WriteRange(ctx context.Context, w io.Writer, off, n int64) (written int64, err error) {
	if rest := max(b.Size()-off, 0); n < 0 || n > rest {
		n = rest
	}
	lastFailure := int64(-1) // offset of the last failed read
	var checked struct {
		to   int64
		when time.Time
	}
	for written < n {
		if ctx.Err() != nil {
			return written, context.Cause(ctx)
		}
		at := off + written
		sound, err := checked.to-at, error(nil)
		if sound <= 0 || time.Since(checked.when) > checkHolds {
			sound, err = b.file.Check(ctx, at, min(checkAhead, n-written))
			checked.to, checked.when = at+sound, time.Now()
		}
		if isLost(ctx, err) {
			wrote, err := b.repair(ctx, w, at, n-written, err)
			return written + wrote, err
		}
		b.p.noteQuarantined(err, b.Size())
		var wrote int64
		if err == nil {
			wrote, err = b.cursor.Copy(w, at, min(sound, pieceSize))
			written += wrote
		}
		if err != nil {
			checked.to = at
		}
		if errors.Is(err, cache.ErrDown) {
			wrote, err := b.withoutDisk(ctx, w, off+written, n-written)
			written += wrote
			if err != nil {
				return written, err
			}
			continue
		}
		if (errors.Is(err, syscall.EIO) || errors.Is(err, cache.ErrUnreadable)) && off+written != lastFailure {
			// The disk can no longer read what it could read when it was
			// checked.
			lastFailure = off + written
			b.file.InvalidateChecks()
			continue
		}
		if err != nil {
			return written, fmt.Errorf("blob %s: %w", b.digest, err)
		}
	}
	return written, nil
}

// isLost says whether an error of a check means that the file can't be read any
// further, whatever the reason is: the clients come first.
func isLost(ctx context.Context, err error) bool {
	switch {
	case err == nil, ctx.Err() != nil, errors.Is(err, cache.ErrUnproven), errors.Is(err, cache.ErrDown):
		return false
	}
	return true
}

// noteQuarantined tells the store that content of size bytes was quarantined,
// if err says so.
func (p *Puller) noteQuarantined(err error, size int64) {
	if errors.Is(err, cache.ErrQuarantined) {
		p.store.Quarantined(size)
	}
}
