package flight

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/upstream"
)

const (
	// maxResumes is how often a download is resumed while it gets less than
	// worthwhile bytes further: drop by drop is beyond retry too.
	maxResumes  = 4
	minProgress = 128 << 10
	// bufferSize is the size of one read from a source, in bytes.
	bufferSize = 128 << 10
)

// download fills a Flight. It is used by one goroutine.
type download struct {
	*Flight
	sink     Sink
	observer Observer
	log      *slog.Logger
	seed     *Seed
	buf      []byte
}

// run takes the flight to its end.
func (d *download) run(ctx context.Context) {
	d.buf = make([]byte, bufferSize)
	if err := d.fill(ctx); err != nil {
		err = fmt.Errorf("%s: %w", d.source, causeOf(ctx, err))
		d.log.Warn("download failed", "error", err)
		d.fail(err)
		return
	}
	if err := d.spool.verify(); err != nil {
		err = fmt.Errorf("%s: %w: %w", d.source, upstream.ErrBadAnswer, err)
		d.log.Error("content refused", "error", err)
		d.fail(err)
		return
	}
	d.update(func() { d.state, d.size.total = complete, d.written })
	d.observer.Completed(d.written)
	d.publish(ctx)
}

func (d *download) fail(err error) {
	d.observer.Failed(err)
	d.update(func() { d.state, d.err = failed, err })
}

// causeOf gives an error that only says that ctx ended its meaning back.
func causeOf(ctx context.Context, err error) error {
	if ctx.Err() == nil || !errors.Is(err, ctx.Err()) {
		return err
	}
	return fmt.Errorf("%w: this mirror is stopping", upstream.ErrUnavailable)
}

// publish keeps what is proven, once there is room for it.
func (d *download) publish(ctx context.Context) {
	if d.spool.inMemory {
		return // it has no disk, and that was noted already
	}
	if err := d.sink.Publish(ctx, d.digest, d.written, d.spool.draft); err != nil {
		d.notCached(err)
	}
}

// notKept notes that content goes to its readers without being kept.
func (d *download) notCached(err error) {
	d.observer.NotCached()
	d.sink.NotCached()
	d.log.Warn("blob is not kept", "error", err)
}

// fill takes the whole content, and resumes where the source breaks off.
func (d *download) fill(ctx context.Context) error {
	if err := d.copySeed(ctx); err != nil {
		return err
	}
	seeded := d.written
	for resumes, mark := 0, d.written; ; {
		err := d.fetch(ctx, d.next())
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return err
		case !isResumable(err):
			return err
		case d.written >= mark+minProgress:
			resumes, mark = 0, d.written
		}
		if d.written == seeded || resumes == maxResumes {
			return err // before the first byte the registry's own tries were all there is to do
		}
		resumes++
		d.log.Info("download resumed", "offset", d.written, "error", err)
		if err := pause(ctx, time.Duration(resumes)*200*time.Millisecond); err != nil {
			return err
		}
	}
}

// worthResuming tells a broken line from an answer.
func isResumable(err error) bool {
	return errors.Is(err, upstream.ErrUnavailable) && !errors.Is(err, upstream.ErrBadAnswer) && !errors.Is(err, ErrReaderTooSlow)
}

// pause waits for about t, with jitter.
func pause(ctx context.Context, t time.Duration) error {
	timer := time.NewTimer(t/2 + rand.N(t))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// sow begins with the sound bytes of the seed, from the start to the first that
// is damaged. The digest proves in the end that they and what is fetched are one.
func (d *download) copySeed(ctx context.Context) error {
	if d.seed == nil {
		return nil
	}
	defer d.seed.Close()
	d.open(ctx, d.size.announced)
	d.update(func() { d.size, d.state = d.size.trusted(), receiving })
	for d.written < d.size.total {
		sound, err := d.seed.file.Check(ctx, d.written, int64(len(d.buf)))
		if errors.Is(err, cache.ErrSetAside) {
			d.sink.Quarantined(d.size.total)
		}
		if err != nil || sound == 0 {
			return nil // what the seed does not have is fetched
		}
		n, err := d.seed.file.ReadAt(d.buf[:sound], d.written)
		if n == 0 && err != nil {
			return nil // the same
		}
		if err := d.append(ctx, d.buf[:n]); err != nil {
			return err
		}
	}
	return nil
}

// open opens the spool, for content of that size.
func (d *download) open(ctx context.Context, size int64) {
	if d.spool.inMemory {
		return
	}
	draft, err := d.sink.Create(ctx, cache.Descriptor{Digest: d.digest, Size: size})
	if err != nil {
		d.notCached(err)
		draft = nil
	}
	d.spool.open(draft)
}

// fetch is one request. It returns nil when the content is whole.
func (d *download) fetch(ctx context.Context, want span) error {
	content, err := d.source.Blob(ctx, want.from, want.n)
	if err != nil {
		return err
	}
	defer content.Body.Close()
	if err := d.answered(ctx, content); err != nil {
		return err
	}
	// A source that knows no Range begins at the start: what readers have already
	// is skipped, and the digest proves in the end that both are one.
	for skip := d.written - content.From; skip > 0; {
		n, err := content.Body.Read(d.buf[:min(skip, int64(len(d.buf)))])
		d.observer.Received(int64(n))
		skip -= int64(n)
		if err != nil {
			return bodyError(err)
		}
	}
	for {
		n, err := content.Body.Read(d.size.clip(d.buf, d.written))
		if n > 0 {
			d.observer.Received(int64(n))
			if err := d.append(ctx, d.buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case d.isComplete(err):
			return nil
		case err != nil:
			return bodyError(err)
		}
	}
}

// answered takes what an answer says of itself before its body.
func (d *download) answered(ctx context.Context, c upstream.Content) error {
	known := d.size
	var err error
	if d.state == waiting {
		if known, err = known.withFirstAnswer(c); err != nil {
			return err
		}
		d.open(ctx, c.Size)
	}
	if c.From > d.written {
		return fmt.Errorf("%w: asked for offset %d, got %d", upstream.ErrBadAnswer, d.written, c.From)
	}
	if known, err = known.withAnswer(c); err != nil {
		return err
	}
	d.update(func() { d.size, d.state = known, receiving })
	if d.written == 0 {
		d.observer.Answered(known.total)
	}
	return nil
}

// append adds b to what readers may have.
func (d *download) append(ctx context.Context, b []byte) error {
	if err := d.size.check(d.written + int64(len(b))); err != nil {
		return err
	}
	if err := d.spool.write(ctx, b); err != nil {
		if !errors.Is(err, cache.ErrFull) {
			return err
		}
		d.notCached(err)
		if err := d.spool.switchToMemory(ctx, b); err != nil {
			return err
		}
	}
	d.update(func() { d.written += int64(len(b)) })
	return nil
}

// whole says whether all has come, after a read that returned err. Where the
// source does not tell the size, content is whole where a manifest says so and
// the digest agrees: what comes after that is not waited for.
func (d *download) isComplete(err error) bool {
	if d.size.total >= 0 {
		return d.written == d.size.total
	}
	return errors.Is(err, io.EOF) || d.written == d.size.announced && d.spool.verify() == nil
}

// endOf is the meaning of a body's error: an end before the end is a cut.
func bodyError(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: the body ended early", upstream.ErrUnavailable)
	}
	return err
}
