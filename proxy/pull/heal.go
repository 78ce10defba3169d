package pull

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/entrepot/entrepot/upstream"
)

// heal writes the n bytes at off of a blob whose file is damaged there, which
// why says. They come from a download that begins with what is sound before
// the damage, so its first byte from the upstream is the one at off, or close
// before it: the client sees no break, and less than one blob crosses the
// link. As in any download the end is held back until the digest is proven.
func (b *onDisk) heal(ctx context.Context, w io.Writer, off, n int64, why error) (int64, error) {
	b.p.quarantine(why, b.Size())
	if err := b.p.absent.err(blobKey(b.repo, b.digest)); err != nil {
		return 0, errors.Join(why, err)
	}
	if b.p.rules.Offline {
		return 0, fmt.Errorf("blob %s of %s: %w: %w", b.digest, b.repo, why, ErrOffline)
	}
	from := b.p.sourceOf(b.u, b.repo, b.digest)
	start := from.start()
	start.Again, start.Seed = b.again, b.seed
	f, started, err := b.p.flights.Join(from.want(b.Size()), start)
	if err != nil {
		return 0, err
	}
	start.Log.Info("the rest of a damaged blob is fetched again", "offset", off)
	b.healed = true
	if f == nil { // healed by another meanwhile, or it could not be set aside
		return b.fromAnother(ctx, w, off, n)
	}
	healing := &inFlight{from: from, f: f, started: started, size: b.Size(), heals: true}
	defer healing.Close()
	return healing.WriteRange(ctx, w, off, n)
}

// fromAnother writes the n bytes at off from whatever is kept now.
func (b *onDisk) fromAnother(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	kept, err := b.p.openKept(ctx, b.u, b.repo, b.digest)
	if err != nil {
		return 0, fmt.Errorf("blob %s: %w: %w", b.digest, upstream.ErrUnavailable, err)
	}
	defer kept.Close()
	if file, ok := kept.(*onDisk); ok {
		file.again = true
	}
	return kept.WriteRange(ctx, w, off, n)
}
