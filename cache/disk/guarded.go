package disk

import (
	"context"
	"time"

	"github.com/entrepot/entrepot/cache"
)

// guarded are blobs that nobody hangs in while the disk does: what waits for it
// ends with its context, and with cache.ErrDown. What only one goroutine does in
// the background, Walk and Verify, is passed on.
type guarded struct {
	*blobs
	places *places
}

func (g guarded) Open(ctx context.Context, d cache.Digest) (cache.PublishedBlob, error) {
	if b, ok := g.openFromMemory(d); ok {
		return guardedBlob{b, g.places}, nil
	}
	openChecked := func() (cache.PublishedBlob, error) {
		b, err := g.blobs.Open(ctx, d)
		if err == nil {
			b.(*publishedBlob).loadChecks()
		}
		return b, err
	}
	open, err := await(ctx, g.places, task{"open", d}, openChecked, closeLate)
	if err != nil {
		return nil, err
	}
	return guardedBlob{open.(*publishedBlob), g.places}, nil
}

func (g guarded) openFromMemory(d cache.Digest) (*publishedBlob, bool) {
	if g.places.outage() != nil || !g.places.tryRead() {
		return nil, false
	}
	defer g.places.endTry()
	return g.blobs.openFromMemory(d)
}

func closeLate(b cache.PublishedBlob) { b.Close() }

func (g guarded) Stat(ctx context.Context, d cache.Digest) (int64, error) {
	return await(ctx, g.places, task{"stat", d}, func() (int64, error) { return g.blobs.Stat(ctx, d) }, nil)
}

func (g guarded) Create(ctx context.Context, want cache.Descriptor) (cache.Draft, error) {
	create := func() (cache.Draft, error) { return g.blobs.Create(ctx, want) }
	created, err := await(ctx, g.places, task{"create", want.Digest}, create, func(d cache.Draft) { d.Close() })
	if err != nil {
		return nil, err
	}
	return guardedDraft{created.(*draft), g.places}, nil
}

// resumedDraft is what Resume returns.
type resumedDraft struct {
	cache.Draft
	kept cache.KeptDraft
}

func (g guarded) Resume(ctx context.Context, d cache.Digest) (cache.Draft, cache.KeptDraft, error) {
	resume := func() (resumedDraft, error) {
		resumed, kept, err := g.blobs.Resume(ctx, d)
		return resumedDraft{resumed, kept}, err
	}
	// What comes too late for this caller is kept as it was.
	r, err := await(ctx, g.places, task{"resume", d}, resume, func(r resumedDraft) {
		if r.Keep(r.kept.Note) == nil {
			r.Close()
		}
	})
	if err != nil {
		return nil, cache.KeptDraft{}, err
	}
	return guardedDraft{r.Draft.(*draft), g.places}, r.kept, nil
}

func (g guarded) DropKept(ctx context.Context, d cache.Digest, keptAt time.Time) error {
	return awaitError(ctx, g.places, task{"drop the draft of", d}, func() error { return g.blobs.DropKept(ctx, d, keptAt) })
}

func (g guarded) Delete(ctx context.Context, d cache.Digest) error {
	return awaitError(ctx, g.places, task{"delete", d}, func() error { return g.blobs.Delete(ctx, d) })
}

// guardedBlob is published content. What Check has allowed is in the page cache,
// as far as the kernel tells. So Read, ReadAt and SendTo do not leave a hanging
// disk early, but each holds a place while it is in the kernel.
type guardedBlob struct {
	*publishedBlob
	places *places
}

// Check is done by a goroutine of its own, which a client can leave: even the
// stat of an open file may hang. That costs more than the check, so it is done
// at once where the kernel has all in memory. What is checked already is read
// once more where the page cache has dropped it: then the kernel would wait for
// it while it sends, which nobody can leave.
func (b guardedBlob) Check(ctx context.Context, off, n int64) (int64, error) {
	if b.places.outage() != nil {
		return 0, task{"check", b.digest}.failed(errDown)
	}
	if sound := b.checkFromMemory(off, n); sound > 0 {
		return sound, nil
	}
	return await(ctx, b.places, task{"check", b.digest}, func() (int64, error) {
		is, err := b.file.Identify()
		checked := b.checkedAlready(is, off, n)
		if err != nil || checked == 0 {
			return b.publishedBlob.Check(ctx, off, n)
		}
		if sound := b.resident(off, checked); sound > 0 {
			return sound, nil
		}
		return min(checked, pieceSize-off%pieceSize), b.fetch(off)
	}, nil)
}

// checkFromMemory is Check as far as the kernel has all in memory.
func (b guardedBlob) checkFromMemory(off, n int64) int64 {
	if !b.places.tryRead() {
		return 0
	}
	defer b.places.endTry()
	is, ok := b.file.IdentifyFromMemory()
	if !ok {
		return 0
	}
	return b.resident(off, b.checkedAlready(is, off, n))
}

// resident returns how many of the n bytes at off, which are checked, are in the
// page cache before the first piece that is not.
func (b guardedBlob) resident(off, n int64) int64 {
	at := off
	for at < off+n && b.isResident(at) {
		at += pieceSize - at%pieceSize
	}
	return min(at-off, n)
}

// guardedDraft is a draft. If a write returns cache.ErrDown, the bytes may be
// read later: they are given away.
type guardedDraft struct {
	*draft
	places *places
}

func (d guardedDraft) Write(p []byte) (int, error) {
	return await(context.Background(), d.places, task{"write", d.want.Digest}, func() (int, error) { return d.draft.Write(p) }, nil)
}

func (d guardedDraft) WriteAt(p []byte, off int64) (int, error) {
	return await(context.Background(), d.places, task{"write", d.want.Digest}, func() (int, error) { return d.draft.WriteAt(p, off) }, nil)
}

func (d guardedDraft) Advance(n int) (int, error) {
	return await(context.Background(), d.places, task{"advance", d.want.Digest}, func() (int, error) { return d.draft.Advance(n) }, nil)
}

func (d guardedDraft) Drop(off int64) {
	_ = awaitError(context.Background(), d.places, task{"drop", d.want.Digest}, func() error { d.draft.Drop(off); return nil })
}

func (d guardedDraft) Reserve() error {
	return awaitError(context.Background(), d.places, task{"reserve room for", d.want.Digest}, d.draft.Reserve)
}

func (d guardedDraft) Check(off, n int64) int64 {
	if !d.draft.hasUnchecked() {
		return d.draft.Check(off, n)
	}
	sound, _ := await(context.Background(), d.places, task{"check", d.want.Digest}, func() (int64, error) { return d.draft.Check(off, n), nil }, nil)
	return sound
}

func (d guardedDraft) Reader() (cache.Blob, error) {
	return await(context.Background(), d.places, task{"read the draft of", d.want.Digest}, d.draft.Reader, func(b cache.Blob) { b.Close() })
}

func (d guardedDraft) Commit() error {
	return awaitError(context.Background(), d.places, task{"commit", d.want.Digest}, d.draft.Commit)
}

func (d guardedDraft) Save(note []byte) error {
	return awaitError(context.Background(), d.places, task{"save the draft of", d.want.Digest}, func() error { return d.draft.Save(note) })
}

func (d guardedDraft) Keep(note []byte) error {
	return awaitError(context.Background(), d.places, task{"keep the draft of", d.want.Digest}, func() error { return d.draft.Keep(note) })
}

// Close closes the draft when the disk is up.
func (d guardedDraft) Close() error {
	if d.places.outage() != nil {
		d.places.later(func() { d.draft.Close() })
		return nil
	}
	return awaitError(context.Background(), d.places, task{"close the draft of", d.want.Digest}, d.draft.Close)
}
