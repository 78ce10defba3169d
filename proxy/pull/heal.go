package pull

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/upstream"
)

// heal writes the n bytes at off of a blob whose file is damaged there, which
// why says. They come from a download that begins with what is sound before
// the damage, so its first byte from the upstream is the one at off, or close
// before it: the client sees no break, and less than one blob crosses the
// link. As in any download the end is held back until the digest is proven.
func (b *onDisk) heal(ctx context.Context, w io.Writer, off, n int64, why error) (int64, error) {
	b.p.noteAside(why, b.Size())
	if err := b.p.absent.err(blobKey(b.repo, b.digest)); err != nil {
		return 0, errors.Join(why, err)
	}
	if b.p.opts.Offline {
		return 0, fmt.Errorf("blob %s of %s: %w: %w", b.digest, b.repo, why, ErrOffline)
	}
	f, started, err := b.p.fly(b.u, b.repo, Descriptor{Digest: b.digest, Size: b.Size()}, b.anew, &seed{b.file, b.users})
	if err != nil {
		return 0, err
	}
	b.p.log.Info("the rest of a damaged blob is fetched anew", "upstream", b.repo.Upstream, "repository", b.repo.Name, "digest", b.digest.String(), "offset", off)
	b.healed = true
	if f == nil { // healed by another meanwhile, or it could not be set aside
		return b.fromAnother(ctx, w, off, n)
	}
	flight := &inFlight{p: b.p, u: b.u, repo: b.repo, f: f, started: started, size: b.Size(), mends: true}
	defer flight.Close()
	return flight.WriteRange(ctx, w, off, n)
}

// noteAside counts content of size bytes as no longer kept, if err says so.
func (p *Puller) noteAside(err error, size int64) {
	if errors.Is(err, cache.ErrSetAside) {
		p.evictor.shrank(size)
	}
}

// fromAnother writes the n bytes at off from whatever is kept now.
func (b *onDisk) fromAnother(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	kept, err := b.p.openKept(ctx, b.u, b.repo, b.digest)
	if err != nil {
		return 0, fmt.Errorf("blob %s: %w: %w", b.digest, upstream.ErrUnavailable, err)
	}
	defer kept.Close()
	if file, ok := kept.(*onDisk); ok {
		file.anew = true
	}
	return kept.WriteRange(ctx, w, off, n)
}

// seed is what a flight begins with: a kept file, sound up to where it is
// damaged. It is closed when the last of its users has closed it.
type seed struct {
	file  cache.Kept
	users *atomic.Int32
}

// hold makes one more user.
func (s *seed) hold() *seed {
	if s != nil {
		s.users.Add(1)
	}
	return s
}

func (s *seed) Close() error {
	if s.users.Add(-1) > 0 {
		return nil
	}
	return s.file.Close()
}

// sow gives a flight the sound bytes of its seed, from the start to the first
// that is damaged. The digest proves in the end that they and what is fetched
// are one.
func (p *Puller) sow(f *flight, buf []byte) error {
	if f.seed == nil {
		return nil
	}
	defer f.seed.Close()
	f.begin(f.size) // proven once: it is what the upstream would say
	for f.written < f.size {
		sound, err := f.seed.file.Check(p.ctx, f.written, int64(len(buf)))
		p.noteAside(err, f.size)
		if err != nil || sound == 0 {
			return nil // what the seed does not have is fetched
		}
		n, err := f.seed.file.ReadAt(buf[:sound], f.written)
		if n == 0 && err != nil {
			return nil // the same
		}
		if err := p.append(f, buf[:n]); err != nil {
			return err
		}
	}
	return nil
}
