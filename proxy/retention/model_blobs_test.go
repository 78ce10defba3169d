package retention_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/retention"
)

// testDiskBlobs are blobs on a disk whose power may be cut.
type testDiskBlobs struct {
	cache.Blobs
	power *testDisk
}

func (b testDiskBlobs) Create(ctx context.Context, want retention.Descriptor) (draft cache.Draft, err error) {
	err = b.power.step(func() (err error) {
		if err = b.power.hasRoomForContent(); err == nil {
			draft, err = b.Blobs.Create(ctx, want)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &testDiskDraft{Draft: draft, digest: want.Digest, power: b.power}, nil
}

func (b testDiskBlobs) Resume(ctx context.Context, d retention.Digest) (draft cache.Draft, kept cache.KeptDraft, err error) {
	err = b.power.step(func() (err error) {
		draft, kept, err = b.Blobs.Resume(ctx, d)
		if err != nil && !errors.Is(err, cache.ErrNotFound) {
			b.power.note("%s not resumed", mirrortest.Short(d.String()))
		}
		return err
	})
	if err != nil {
		return nil, kept, err
	}
	return &testDiskDraft{Draft: draft, digest: d, power: b.power}, kept, nil
}

func (b testDiskBlobs) DropKept(ctx context.Context, d retention.Digest, keptAt time.Time) error {
	return b.power.step(func() error {
		b.power.drafts.lose(d)
		b.power.note("the draft of %s dropped", mirrortest.Short(d.String()))
		return b.Blobs.DropKept(ctx, d, keptAt)
	})
}

func (b testDiskBlobs) Delete(ctx context.Context, d retention.Digest) error {
	return b.power.step(func() error {
		err := b.Blobs.Delete(ctx, d)
		if err == nil {
			b.power.note("%s of %d deleted", mirrortest.Short(d.String()), b.power.sizes[d])
			delete(b.power.sizes, d)
			b.power.drafts.lose(d)
		}
		return err
	})
}

type testDiskDraft struct {
	cache.Draft
	digest retention.Digest
	power  *testDisk
	stays  bool // it was committed or kept; guarded by power.mu
	closed bool // the same
}

func (d *testDiskDraft) Write(b []byte) (n int, err error) { return d.write(b, d.Draft.Write) }

func (d *testDiskDraft) WriteAt(b []byte, off int64) (n int, err error) {
	return d.write(b, func(b []byte) (int, error) { return d.Draft.WriteAt(b, off) })
}

func (d *testDiskDraft) write(b []byte, write func([]byte) (int, error)) (n int, err error) {
	err = d.power.step(func() (err error) {
		if err = d.power.hasRoomForContent(); err != nil {
			b = b[:len(b)/2] // of a write that fails a part may be there
		}
		wrote, writeErr := write(b)
		n = wrote
		return errors.Join(err, writeErr)
	})
	return n, err
}

func (d *testDiskDraft) Reserve() error {
	return d.power.step(func() error {
		if err := d.power.hasRoomForContent(); err != nil {
			return err
		}
		return d.Draft.Reserve()
	})
}

func (d *testDiskDraft) Drop(off int64) {
	_ = d.power.step(func() error {
		d.power.drafts.lose(d.digest)
		d.Draft.Drop(off)
		return nil
	})
}

func (d *testDiskDraft) Save(note []byte) error {
	return d.power.step(func() error { return d.save(note, d.Draft.Save) })
}

func (d *testDiskDraft) Keep(note []byte) error {
	return d.power.step(func() error {
		err := d.save(note, d.Draft.Keep)
		if err != nil {
			d.power.drafts.notKept++
		}
		d.stays = err == nil
		return err
	})
}

// save makes the draft durable. d.power.mu is held.
func (d *testDiskDraft) save(note []byte, save func([]byte) error) error {
	if err := d.power.hasRoom(); err != nil {
		return err
	}
	pieces := d.Pieces() // what is written meanwhile waits for d.power.mu
	err := save(note)
	if err == nil {
		d.power.note("%d bytes of %s saved", pieces.Len(), mirrortest.Short(d.digest.String()))
		d.power.drafts.synced[d.digest] = pieces
	}
	return err
}

func (d *testDiskDraft) Commit() error {
	return d.power.step(func() error {
		if err := d.power.hasRoomForContent(); err != nil {
			return err
		}
		if err := d.Draft.Commit(); err != nil {
			return err
		}
		d.stays = true
		d.checkPublished()
		delete(d.power.drafts.synced, d.digest)
		d.power.note("%s of %d published", mirrortest.Short(d.digest.String()), d.Written())
		d.power.sizes[d.digest] = d.Written()
		var total int64
		for _, size := range d.power.sizes {
			total += size
		}
		d.power.over = max(d.power.over, total-d.power.bound)
		return nil
	})
}

// checkPublished checks that nothing is published that is not what its digest
// says.
func (d *testDiskDraft) checkPublished() {
	content := make([]byte, d.Written())
	if _, err := d.ReadAt(content, 0); err != nil || d.digest.Algorithm().FromBytes(content) != d.digest {
		d.power.t.Errorf("%d bytes were published as %s, which they are not: %v", len(content), d.digest, err)
	}
}

func (d *testDiskDraft) Close() error {
	return d.power.step(func() error {
		if !d.stays && !d.closed {
			d.power.drafts.lose(d.digest)
			delete(d.power.drafts.synced, d.digest)
			d.power.note("the draft of %s discarded", mirrortest.Short(d.digest.String()))
		}
		d.closed = true
		return d.Draft.Close()
	})
}

// drafts are what the model knows of unfinished downloads. All of it is guarded
// by the lock of the disk.
type drafts struct {
	// read is what clients have read at the last look of content that was not
	// evicted or damaged since. It is replaced, never changed.
	read map[retention.Digest]cache.Spans
	// lost are the drafts that were removed, or lost pieces, since the last look.
	lost map[retention.Digest]bool
	// synced are the pieces of a draft that were durable when it was last saved.
	synced  map[retention.Digest]cache.Spans
	notKept int // for lack of room
	// forgets means that a power cut loses what was written and not synced.
	forgets bool
	atCut   map[retention.Digest]cache.Spans
}

func newDrafts() drafts {
	return drafts{lost: map[retention.Digest]bool{}, synced: map[retention.Digest]cache.Spans{}}
}

func (d *drafts) lose(of retention.Digest) { d.lost[of] = true }

// durable is what of read is there after a power cut.
func (d *drafts) durable() map[retention.Digest]cache.Spans {
	read := map[retention.Digest]cache.Spans{}
	for of, spans := range d.read {
		if !d.lost[of] {
			read[of] = spans
		}
	}
	return read
}

// afterCut is what a power cut leaves of the file of a draft: anything of what
// was not synced may be lost.
func (d *drafts) afterCut(name string, content []byte) []byte {
	if !d.forgets {
		return content
	}
	var synced cache.Spans
	for of, spans := range d.synced {
		if bytes.HasPrefix([]byte(name), []byte(of.Encoded()[:12])) {
			synced = slices.Clone(spans)
		}
	}
	lost := cache.Span{To: int64(len(content))}
	for {
		missing := synced.Missing(lost)
		if missing.Len() == 0 {
			return content
		}
		clear(content[missing.From:missing.To])
		lost.From = missing.To
	}
}
