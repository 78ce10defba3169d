package flight

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/limits/panics"
)

// An Origin is where a source has its content from. Content that has not been
// verified is not shared between upstreams.
type Origin struct {
	Upstream   string `json:"upstream"`
	Repository string `json:"repository"`
}

// note is stored with a draft that is kept.
type note struct {
	Origin
	ETag string `json:"etag,omitempty"`
}

// OriginOf is where a draft that is kept with a note has its content from.
func OriginOf(b []byte) (Origin, error) {
	var of note
	err := json.Unmarshal(b, &of)
	return of.Origin, err
}

// begin takes up what there is already: the sound part of a stored file, or a
// draft that an earlier download has left.
func (d *download) begin(ctx context.Context) error {
	if d.start.Seed != nil {
		return d.copySeed(ctx)
	}
	if d.spool.isInMemory() {
		return nil
	}
	d.takeUp(ctx)
	return nil
}

// takeUp takes up a draft that an earlier download has left.
func (d *download) takeUp(ctx context.Context) {
	draft, kept, err := d.group.sink.Resume(ctx, d.digest)
	if err != nil {
		if !errors.Is(err, cache.ErrNotFound) && !errors.Is(err, cache.ErrDown) {
			d.start.Log.Warn("an earlier part of the download cannot be used", "error", err)
		}
		return
	}
	var of note
	if err := json.Unmarshal(kept.Note, &of); err != nil || of.Upstream != d.source.Origin().Upstream || kept.Size < 0 {
		draft.Close()
		return
	}
	d.known.etag = of.ETag
	d.spool.resumed = true
	d.spool.open(draft)
	pieces := draft.Pieces()
	d.start.Log.Info("an earlier download is taken up", "bytes", pieces.Len(), "size", kept.Size)
	d.update(func() {
		d.size, d.state = d.size.withTotal(kept.Size), receiving
		d.plan.have, d.plan.total = pieces, kept.Size
		d.plan.scattered = len(pieces) > 1
		d.plan.ask(pieces)
	})
}

// copySeed copies the sound bytes of the seed, from the start to the first
// damaged one. The digest verifies at the end that they belong to the rest.
func (d *download) copySeed(ctx context.Context) error {
	defer d.start.Seed.Close()
	total := d.size.announced
	d.open(ctx, total)
	r := &request{to: total, fill: true, open: true}
	d.update(func() {
		d.size, d.state = d.size.withTotal(total), receiving
		d.plan.total = total
		d.plan.insist()
	})
	defer func() { d.progress.stored = 0 }()
	buf := make([]byte, bufferSize)
	for r.at < total {
		sound, err := d.start.Seed.file.Check(ctx, r.at, int64(len(buf)))
		if errors.Is(err, cache.ErrQuarantined) {
			d.group.sink.Quarantined(total)
		}
		if err != nil || sound == 0 {
			return nil // the rest is downloaded
		}
		n, err := d.start.Seed.file.ReadAt(buf[:sound], r.at)
		if n == 0 && err != nil {
			return nil // the rest is downloaded
		}
		if err := d.store(ctx, r, buf[:n]); err != nil {
			return err
		}
	}
	return nil
}

// reserve reserves room for all of the content, once all of it is wanted.
func (d *download) reserve() error {
	d.known.Lock()
	defer d.known.Unlock()
	d.mu.Lock()
	due := d.plan.fill && d.state == receiving && !d.known.reserved && d.spool.isUsable()
	total := d.plan.total
	d.mu.Unlock()
	if !due {
		return nil
	}
	d.known.reserved = true
	if total >= 0 {
		d.expect(total - d.known.incoming)
	}
	if err := d.group.sink.Reserve(d.spool.draft, cache.Descriptor{Digest: d.digest, Size: total}); err != nil {
		return d.continueInMemory(err)
	}
	return nil
}

// growStep is for how many bytes more at once the sink is asked, where the source
// gives no size. The first are not counted: most such content is small.
const growStep = 4 << 20

// grow has the sink count content up to end whose size the source does not give.
func (d *download) grow(end int64) error {
	d.mu.Lock()
	sized := d.plan.total >= 0
	d.mu.Unlock()
	if sized || d.spool.isInMemory() {
		return nil
	}
	d.known.Lock()
	defer d.known.Unlock()
	for d.known.incoming+growStep < end {
		if err := d.group.sink.Grow(growStep); err != nil {
			return fmt.Errorf("content whose size the upstream does not give: %w", err)
		}
		d.known.incoming += growStep
	}
	return nil
}

// errNoRoom ends a request whose bytes can't be stored.
var errNoRoom = fmt.Errorf("%w: there is no disk space for a part of the blob", cache.ErrFull)

// continueInMemory continues without disk space. Only what is there from the
// start on is of use then. d.known is held.
func (d *download) continueInMemory(why error) error {
	if d.spool.isInMemory() {
		return nil
	}
	d.notCached(why)
	d.mu.Lock()
	prefix, sized := d.plan.prefix(), d.plan.total >= 0
	d.mu.Unlock()
	if !sized {
		d.expect(-d.known.incoming) // others may grow instead
	}
	prefix, _ = d.spool.check(0, prefix) // what an earlier download left may be damaged
	prefix, err := d.spool.switchToMemory(prefix)
	if err != nil {
		return err
	}
	d.update(func() {
		d.plan.have.Remove(cache.Span{From: prefix, To: d.plan.end()})
		d.plan.inOrder = true
		d.decide()
	})
	return nil
}

// keep keeps what has been received for the next download of it.
func (d *download) keep(ctx context.Context) {
	d.saving.Wait()
	d.mu.Lock()
	worth := d.spool.isUsable() && d.size.total >= 0 && len(d.plan.have) > 0
	d.mu.Unlock()
	if !worth {
		return
	}
	if err := d.group.sink.Keep(context.WithoutCancel(ctx), d.digest, d.spool.draft, d.note()); err != nil {
		d.start.Log.Warn("what was received of a blob cannot be kept", "error", err)
	}
}

// save makes what has been received durable, beside the download.
func (d *download) save() {
	if !d.spool.isUsable() {
		return
	}
	d.saving.Wait()
	note := d.note()
	d.saving.Go(func() {
		defer panics.Report("saving a draft")
		if err := d.spool.draft.Save(note); err != nil {
			d.start.Log.Warn("what was received of a blob cannot be made durable", "error", err)
		}
	})
}

func (d *download) note() []byte {
	d.known.Lock()
	defer d.known.Unlock()
	b, err := json.Marshal(note{d.source.Origin(), d.known.etag})
	if err != nil {
		panic(fmt.Sprintf("a note of strings: %v", err))
	}
	return b
}
