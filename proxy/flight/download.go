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
	// maxResumes is how often a download is resumed while each attempt gets
	// less than minProgress bytes further. A download that only drips has
	// failed too.
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

// run runs the download to its end.
func (d *download) run(ctx context.Context) {
	d.buf = make([]byte, bufferSize)
	if err := d.fill(ctx); err != nil {
		err = fmt.Errorf("%s: %w", d.source, causeOf(ctx, err))
		d.log.Warn("download failed", "error", err)
		d.fail(err)
		return
	}
	if err := d.spool.verify(); err != nil {
		err = fmt.Errorf("%s: %w: %w", d.source, upstream.ErrInvalidResponse, err)
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

// causeOf replaces an error that only says that ctx is done by the reason why
// it is.
func causeOf(ctx context.Context, err error) error {
	if ctx.Err() == nil || !errors.Is(err, ctx.Err()) {
		return err
	}
	return fmt.Errorf("%w: this mirror is stopping", upstream.ErrUnavailable)
}

// publish stores verified content when there is room for it.
func (d *download) publish(ctx context.Context) {
	if d.spool.inMemory {
		return // it has no disk space, which has been reported
	}
	if err := d.sink.Publish(ctx, d.digest, d.written, d.spool.draft); err != nil {
		d.notCached(err)
	}
}

// notCached reports that content is delivered to its readers without being
// stored.
func (d *download) notCached(err error) {
	d.observer.NotCached()
	d.sink.NotCached()
	d.log.Warn("blob could not be cached", "error", err)
}

// fill receives the whole content, and resumes if the source breaks off.
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
			return err // nothing was received: the source has retried by itself
		}
		resumes++
		d.log.Info("download resumed", "offset", d.written, "error", err)
		if err := pause(ctx, time.Duration(resumes)*200*time.Millisecond); err != nil {
			return err
		}
	}
}

// isResumable distinguishes a broken connection from an answer.
func isResumable(err error) bool {
	return errors.Is(err, upstream.ErrUnavailable) && !errors.Is(err, upstream.ErrInvalidResponse) && !errors.Is(err, ErrReaderTooSlow)
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

// copySeed copies the sound bytes of the seed, from the start to the first
// damaged one. The digest verifies at the end that they belong to the rest.
func (d *download) copySeed(ctx context.Context) error {
	if d.seed == nil {
		return nil
	}
	defer d.seed.Close()
	d.open(ctx, d.size.announced)
	d.update(func() { d.size, d.state = d.size.trusted(), receiving })
	for d.written < d.size.total {
		sound, err := d.seed.file.Check(ctx, d.written, int64(len(d.buf)))
		if errors.Is(err, cache.ErrQuarantined) {
			d.sink.Quarantined(d.size.total)
		}
		if err != nil || sound == 0 {
			return nil // the rest is downloaded
		}
		n, err := d.seed.file.ReadAt(d.buf[:sound], d.written)
		if n == 0 && err != nil {
			return nil // the rest is downloaded
		}
		if err := d.append(ctx, d.buf[:n]); err != nil {
			return err
		}
	}
	return nil
}

// open opens the spool for content of that size.
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

// fetch makes one request. It returns nil when the content is complete.
func (d *download) fetch(ctx context.Context, want span) error {
	content, err := d.source.Blob(ctx, want.from, want.n)
	if err != nil {
		return err
	}
	defer content.Body.Close()
	if err := d.answered(ctx, content); err != nil {
		return err
	}
	// A source that does not support ranges starts at the beginning. Skip the
	// bytes that readers already have. The digest verifies at the end that both
	// parts belong together.
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

// answered handles an answer of the source before its body is read.
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
		return fmt.Errorf("%w: asked for offset %d, got %d", upstream.ErrInvalidResponse, d.written, c.From)
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

// append makes b available to readers.
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

// isComplete says whether all bytes are received, after a read that returned
// err. If the source does not give the size, the content is complete once it
// has the size that a manifest gives and the digest matches; anything after
// that is ignored.
func (d *download) isComplete(err error) bool {
	if d.size.total >= 0 {
		return d.written == d.size.total
	}
	return errors.Is(err, io.EOF) || d.written == d.size.announced && d.spool.verify() == nil
}

// bodyError translates an error of a body: an EOF before the end of the content
// is a broken connection.
func bodyError(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: the body ended early", upstream.ErrUnavailable)
	}
	return err
}
