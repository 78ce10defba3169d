package memory

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/entrepot/entrepot/cache"
)

type blobs struct {
	mu        sync.RWMutex
	available int64 // bytes that may still be written
	content   map[cache.Digest][]byte
	kept      map[cache.Digest]*kept
	changes   int // how often content was published or deleted
}

func (b *blobs) Open(_ context.Context, d cache.Digest) (cache.PublishedBlob, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	content, ok := b.content[d]
	if !ok {
		return nil, fmt.Errorf("open %s: %w", d, cache.ErrNotFound)
	}
	return &blob{Reader: bytes.NewReader(content), blobs: b, digest: d, content: content}, nil
}

func (b *blobs) Stat(_ context.Context, d cache.Digest) (int64, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	content, ok := b.content[d]
	if !ok {
		return 0, fmt.Errorf("stat %s: %w", d, cache.ErrNotFound)
	}
	return int64(len(content)), nil
}

func (b *blobs) Create(_ context.Context, want cache.Descriptor) (cache.Draft, error) {
	if err := want.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("create %q: %w", want.Digest, err)
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.available == 0 && want.Size != 0 {
		return nil, fmt.Errorf("create %s: %w", want.Digest, cache.ErrFull)
	}
	return b.newDraft(want), nil
}

func (b *blobs) Delete(_ context.Context, d cache.Digest) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.available += int64(len(b.content[d]))
	delete(b.content, d)
	b.changes++
	return nil
}

func (b *blobs) Mark(context.Context) string {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return strconv.Itoa(b.changes)
}

func (b *blobs) Verify(_ context.Context, d cache.Digest, pace func(n int) error) (int64, error) {
	b.mu.RLock()
	content, ok := b.content[d]
	b.mu.RUnlock()
	if !ok {
		return 0, fmt.Errorf("verify %s: %w", d, cache.ErrNotFound)
	}
	size := int64(len(content))
	if err := pace(len(content)); err != nil {
		return 0, fmt.Errorf("verify %s: %w", d, err)
	}
	if err := b.checkDigest(d, content); err != nil {
		return size, fmt.Errorf("verify %s: %w", d, err)
	}
	return size, nil
}

// checkDigest removes content from the store if it does not match its digest.
func (b *blobs) checkDigest(d cache.Digest, content []byte) error {
	if d.Algorithm().FromBytes(content) == d {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now, ok := b.content[d]
	if !ok || !bytes.Equal(now, content) { // replaced meanwhile
		return cache.ErrMismatch
	}
	b.available += int64(len(content))
	delete(b.content, d)
	b.changes++
	return fmt.Errorf("%w: %w", cache.ErrQuarantined, cache.ErrMismatch)
}

func (b *blobs) Outage() <-chan struct{} { return nil }

func (b *blobs) Weight(size int64) int64 { return size }

// damage flips a bit of stored content, as a disk may.
func (b *blobs) damage(d cache.Digest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	content := bytes.Clone(b.content[d])
	content[len(content)/2] ^= 1
	b.content[d] = content
}

func (b *blobs) Walk(ctx context.Context, fn func(d cache.Digest, size int64) bool) error {
	b.mu.RLock()
	digests := make([]cache.Digest, 0, len(b.content))
	for d := range b.content {
		digests = append(digests, d)
	}
	b.mu.RUnlock()
	slices.Sort(digests)
	for _, d := range digests {
		if ctx.Err() != nil {
			return fmt.Errorf("walk: %w", context.Cause(ctx))
		}
		b.mu.RLock()
		content, ok := b.content[d]
		b.mu.RUnlock()
		if ok && !fn(d, int64(len(content))) {
			break
		}
	}
	return nil
}

// reserve reserves n bytes, or as many as are available.
func (b *blobs) reserve(n int64) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	n = min(n, b.available)
	b.available -= n
	return n
}

func (b *blobs) release(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.available += n
}

// publish stores content whose bytes have been reserved, and removes a draft of
// it that was kept.
func (b *blobs) publish(d cache.Digest, content []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.available += int64(len(b.content[d]))
	b.content[d] = content
	b.changes++
	if k := b.kept[d]; k != nil {
		b.available += k.Bytes
		delete(b.kept, d)
	}
}

// blob is open content. The first Check verifies all of it.
type blob struct {
	*bytes.Reader
	blobs   *blobs
	digest  cache.Digest
	content []byte
	checked atomic.Bool
}

func (b *blob) Check(_ context.Context, off, n int64) (int64, error) {
	if n = min(n, b.Size()-off); n <= 0 {
		return 0, nil
	}
	if !b.checked.Load() {
		if err := b.blobs.checkDigest(b.digest, b.content); err != nil {
			return 0, fmt.Errorf("check %s: %w", b.digest, err)
		}
		b.checked.Store(true)
	}
	return n, nil
}

func (b *blob) InvalidateChecks() { b.checked.Store(false) }

func (*blob) Close() error { return nil }
