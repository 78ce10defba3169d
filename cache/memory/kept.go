package memory

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/entrepot/entrepot/cache"
)

// kept is a draft that waits to be resumed.
type kept struct {
	cache.KeptDraft
	want   cache.Descriptor
	pieces pieces
	have   cache.Spans
}

func (b *blobs) Resume(_ context.Context, d cache.Digest) (cache.Draft, cache.KeptDraft, error) {
	k := b.takeKept(d)
	if k == nil {
		return nil, cache.KeptDraft{}, fmt.Errorf("resume %s: %w", d, cache.ErrNotFound)
	}
	resumed := b.newDraft(k.want)
	resumed.have = slices.Clone(k.have)
	for _, piece := range k.pieces {
		resumed.ahead.add(piece.from, piece.content)
	}
	return resumed, k.KeptDraft, nil
}

func (b *blobs) Kept(d cache.Digest) (cache.KeptDraft, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if k := b.kept[d]; k != nil {
		return k.KeptDraft, true
	}
	return cache.KeptDraft{}, false
}

func (b *blobs) AllKept() []cache.KeptDraft {
	b.mu.RLock()
	defer b.mu.RUnlock()
	all := make([]cache.KeptDraft, 0, len(b.kept))
	for _, k := range b.kept {
		all = append(all, k.KeptDraft)
	}
	return all
}

func (b *blobs) DropKept(_ context.Context, d cache.Digest, keptAt time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if k := b.kept[d]; k != nil && (keptAt.IsZero() || k.KeptAt.Equal(keptAt)) {
		delete(b.kept, d)
		b.available += k.Bytes
	}
	return nil
}

// keep keeps a draft, whose bytes have been reserved, in place of an earlier
// one.
func (b *blobs) keep(k *kept) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if before := b.kept[k.Digest]; before != nil {
		b.available += before.Bytes
	}
	b.kept[k.Digest] = k
}

func (b *blobs) takeKept(d cache.Digest) *kept {
	b.mu.Lock()
	defer b.mu.Unlock()
	k := b.kept[d]
	delete(b.kept, d)
	return k
}
