package disk

import (
	"context"
	"errors"
	"fmt"

	"github.com/entrepot/entrepot/cache"
)

func (b *blobs) Resume(_ context.Context, d cache.Digest) (cache.Draft, cache.KeptDraft, error) {
	return nil, cache.KeptDraft{}, fmt.Errorf("resume %s: %w", d, cache.ErrNotFound)
}

func (b *blobs) Kept(cache.Digest) (cache.KeptDraft, bool) { return cache.KeptDraft{}, false }

func (b *blobs) AllKept() []cache.KeptDraft { return nil }

func (b *blobs) DropKept(context.Context, cache.Digest) error { return nil }

func (d *draft) WriteAt([]byte, int64) (int, error) { return 0, errors.ErrUnsupported }

func (d *draft) Advance(int) (int, error) { return 0, nil }

func (d *draft) Reserve() error {
	more := d.want.Size - d.Written() - d.reserved
	if d.done || more <= 0 {
		return nil
	}
	if err := d.blobs.reserve(more); err != nil {
		return fmt.Errorf("reserve %d bytes for %s: %w", more, d.want.Digest, wrapFull(err))
	}
	d.reserved += more
	return nil
}

func (d *draft) Pieces() (have cache.Spans) {
	have.Add(cache.Span{To: d.Written()})
	return have
}

func (d *draft) Check(off, n int64) int64 { return max(0, min(n, d.Written()-off)) }

func (d *draft) Save([]byte) error { return errors.ErrUnsupported }

func (d *draft) Keep([]byte) error { return errors.ErrUnsupported }
