package pull

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/flight"
)

// onDisk is a blob that is kept. What goes out is checked first, piece by
// piece; see heal for what is damaged.
type onDisk struct {
	p      *Puller
	u      Upstream
	repo   Repository
	digest Digest
	file   cache.Kept
	cursor cache.Cursor // over file
	seed   *flight.Seed // the file, shared with the downloads that begin with it
	// again says that the file is there and may be the one that was found
	// damaged: another is fetched, whatever is kept.
	again  bool
	healed bool
}

func newOnDisk(p *Puller, u Upstream, repo Repository, d Digest, file cache.Kept) *onDisk {
	p.sent.add(d, 1)
	return &onDisk{p: p, u: u, repo: repo, digest: d, file: file, cursor: cache.NewCursor(file), seed: flight.NewSeed(file)}
}

// sent counts the clients that kept files are sent to, by digest. Who finds no
// file while others still read one comes between the moment in which it was set
// aside and that in which it is healed.
type sent struct {
	mu sync.Mutex
	by map[Digest]int
}

func (s *sent) add(d Digest, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by[d] += n; s.by[d] == 0 {
		delete(s.by, d)
	}
}

func (s *sent) to(d Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.by[d] > 0
}

func (b *onDisk) Digest() Digest { return b.digest }
func (b *onDisk) Size() int64    { return b.file.Size() }

func (b *onDisk) Close() error {
	b.p.sent.add(b.digest, -1)
	return b.seed.Close()
}

func (b *onDisk) Outcome() Outcome {
	if b.healed {
		return Healed
	}
	return Hit
}

func (b *onDisk) WriteRange(ctx context.Context, w io.Writer, off, n int64) (written int64, err error) {
	if rest := max(b.Size()-off, 0); n < 0 || n > rest {
		n = rest
	}
	doubted := int64(-1) // where a read failed last
	for written < n {
		if ctx.Err() != nil {
			return written, context.Cause(ctx)
		}
		at := off + written
		sound, err := b.file.Check(ctx, at, min(piece, n-written))
		if errors.Is(err, cache.ErrMismatch) && !errors.Is(err, cache.ErrUnproven) {
			wrote, err := b.heal(ctx, w, at, n-written, err)
			return written + wrote, err
		}
		b.p.quarantine(err, b.Size())
		var wrote int64
		if err == nil {
			wrote, err = b.cursor.Copy(w, at, sound)
			written += wrote
		}
		if errors.Is(err, syscall.EIO) && off+written != doubted {
			// The disk has lost what was checked a while ago.
			doubted = off + written
			b.file.Doubt()
			continue
		}
		if err != nil {
			return written, fmt.Errorf("blob %s: %w", b.digest, err)
		}
	}
	return written, nil
}

// quarantine notes that content of size bytes is no longer kept, if err says
// that it was set aside.
func (p *Puller) quarantine(err error, size int64) {
	if errors.Is(err, cache.ErrSetAside) {
		p.store.Quarantined(size)
	}
}
