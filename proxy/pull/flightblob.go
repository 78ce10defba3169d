package pull

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/flight"
	"github.com/entrepot/entrepot/upstream"
)

// flightBlob is a blob that is being downloaded, as one client sees it. The
// client may have joined a download that was started for another repository;
// source is the client's own way to the blob.
type flightBlob struct {
	source        *blobSource
	f             *flight.Flight
	r             *flight.Reader
	started       bool // this client's request started the download
	size          int64
	passedThrough bool
	repairs       bool // it replaces a damaged file: ranges wait, so that nothing is downloaded twice
	want          Want
	// inParts means that the client reads everything, in several parts. They
	// come from one download, and the last bytes are held back.
	inParts bool
	begun   bool // some of it was written
	// status is when the client has to have a status; zero if it has one.
	status time.Time
}

func (b *flightBlob) Digest() Digest { return b.source.digest }
func (b *flightBlob) Size() int64    { return b.size }

func (b *flightBlob) Outcome() Outcome {
	switch {
	case b.passedThrough:
		return PassedThrough
	case b.started:
		return Miss
	}
	return Joined
}

func (b *flightBlob) Close() error {
	err := b.r.Close()
	b.f.Release()
	return err
}

// read begins to read from the download.
func (b *flightBlob) read(opts flight.ReadOptions) {
	opts.Patient, opts.Held = b.repairs, b.repairs // the client may have everything before it
	if b.isFromAnotherUpstream() && opts.Parts != nil {
		opts = flight.ReadOptions{Parts: []cache.Span{}, Held: true} // what is not verified is not shared with it
	}
	b.r = b.f.NewReader(opts)
}

// isFromAnotherUpstream says whether the download was started for another
// upstream.
func (b *flightBlob) isFromAnotherUpstream() bool {
	return startedFor(b.f).Upstream != b.source.repo.Upstream
}

// holdIfAll notes whether the client reads everything in several parts.
func (b *flightBlob) holdIfAll() {
	if b.inParts = b.want.isAllInParts(b.size); b.inParts {
		b.r.Hold()
	}
}

// WriteRange follows the download. A range that the download can't store, or
// that it has from another upstream, is fetched by itself.
func (b *flightBlob) WriteRange(ctx context.Context, w io.Writer, off, n int64) (written int64, err error) {
	if b.isUnproven(off, n) {
		return b.followPrivate(ctx, w, off, n)
	}
	if b.bypasses(off, n) {
		written, err := b.passThrough(ctx, w, off, n)
		if written > 0 || err == nil {
			b.passedThrough = true
			return written, err
		}
		b.source.p.log.Debug("waiting for the download to reach the range", "digest", b.source.digest.String(), "offset", off, "error", err)
	}
	if err := b.awaitFirst(ctx, w, off, n); err != nil {
		return 0, err
	}
	written, err = b.r.Follow(ctx, w, off, n)
	b.begun = b.begun || written > 0
	full, slow := errors.Is(err, cache.ErrFull), errors.Is(err, flight.ErrReaderTooSlow)
	switch {
	case errors.Is(err, flight.ErrUnreadable) && ctx.Err() == nil && !(b.inParts && b.begun):
		more, err := b.besideDisk(ctx, w, off+written, n, written)
		return written + more, err
	case err == nil || ctx.Err() != nil, b.inParts && (b.begun || full || slow):
		return written, err
	case written > 0 && full && b.isPart(off, n):
		if n >= 0 {
			n -= written
		}
		more, err := b.followPrivate(ctx, w, off+written, n)
		return written + more, err
	case written > 0:
		return written, err
	case full, slow:
		return b.followPrivate(ctx, w, off, n)
	case !b.started && startedFor(b.f) != b.source.repo:
		return b.rejoin(ctx, w, off, n, err)
	}
	return 0, err
}

// awaitFirst waits for the first byte that a client gets. It does not wait longer
// than for any other answer: then the client gets an error, or, if the download
// is only far away from what it wants, an empty write, so that its answer begins.
func (b *flightBlob) awaitFirst(ctx context.Context, w io.Writer, off, n int64) error {
	if b.status.IsZero() {
		return nil
	}
	wait, cancel := context.WithDeadlineCause(ctx, b.status, errWaited)
	defer cancel()
	b.status = time.Time{}
	moved, err := b.r.Await(wait, off, n)
	if !errors.Is(err, errWaited) {
		return nil
	}
	if !moved {
		return err
	}
	_, err = w.Write(nil)
	return err
}

// isPart says whether that is not the whole blob.
func (b *flightBlob) isPart(off, n int64) bool { return off > 0 || n >= 0 && n < b.size }

// bypasses says whether a range is fetched by itself. Ranges without an end wait
// for a download that is there already, so that many of them over one blob are
// one download (wire fact W21).
func (b *flightBlob) bypasses(off, n int64) bool {
	return !b.repairs && !b.inParts && (n >= 0 || b.started) && b.f.Bypasses(off)
}

// isUnproven says whether the download has a range from another upstream and
// has not verified it. Where the client reads all of the blob in parts, the last
// bytes are held back instead.
func (b *flightBlob) isUnproven(off, n int64) bool {
	if !b.isFromAnotherUpstream() || b.inParts || !b.isPart(off, n) {
		return false
	}
	_, verified := b.f.Progress()
	return !verified
}

// passThrough writes n bytes starting at off directly from the upstream without
// caching them. The download will still fetch them later.
func (b *flightBlob) passThrough(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	if n < 0 {
		n = b.size - off // the download may not know it yet
	}
	return b.f.PassThrough(ctx, w, b.source, off, n, b.source.Received)
}

// followPrivate serves a client that was too slow for a download without disk
// space, or needs what it does not fetch or may not share. A range of the blob
// cannot be verified anyway, so it is passed through. Otherwise, and if the
// upstream has no ranges, it starts a download that nobody else can join.
func (b *flightBlob) followPrivate(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	if b.isPart(off, n) {
		b.passedThrough = true
		written, err := b.passThrough(ctx, w, off, n)
		if written > 0 || !errors.Is(err, upstream.ErrUnsupported) {
			return written, err
		}
	}
	f := b.source.p.flights.StartPrivate(b.source.descriptor(b.size), b.source.startOptions())
	defer f.Release()
	return f.Follow(ctx, w, off, n)
}

// besideDisk serves a client that can't read back what the download has stored:
// n bytes starting at off, of which some were written already. Those that have
// got nothing of a whole blob share one download; in its midst, a client goes on
// from the upstream at the offset.
func (b *flightBlob) besideDisk(ctx context.Context, w io.Writer, off, n, done int64) (written int64, err error) {
	if n >= 0 {
		n -= done
	}
	if b.isPart(off, n) {
		b.passedThrough = true
		return b.passThrough(ctx, w, off, n)
	}
	f := b.source.p.flights.JoinBeside(b.source.descriptor(b.size), b.source.startOptions())
	defer f.Release()
	if err := b.confirm(ctx, f); err != nil {
		return 0, err
	}
	written, err = f.Follow(ctx, w, off, n)
	if written == 0 && err != nil && ctx.Err() == nil {
		return b.followPrivate(ctx, w, off, n) // it was another repository's, or too fast
	}
	return written, err
}

// rejoin serves a client after the download it had joined failed for another
// repository. That failure says nothing about the client's own repository, so
// it joins or starts a download there. If only a part could not be had, the
// download goes on, and the client gets that part by itself.
func (b *flightBlob) rejoin(ctx context.Context, w io.Writer, off, n int64, failed error) (int64, error) {
	start := b.source.startOptions()
	start.Look = b.want.Parts != nil
	f, started, err := b.source.p.flights.Join(b.source.descriptor(b.size), start)
	switch {
	case errors.Is(err, ErrBusy):
		return b.followPrivate(ctx, w, off, n)
	case err != nil:
		return 0, err
	case f == nil:
		return b.writeCached(ctx, w, off, n)
	case !started && b.confirm(ctx, f) != nil:
		f.Release()
		return 0, failed
	case f == b.f:
		f.Release()
		if b.inParts {
			return 0, failed // its parts come from one download
		}
		return b.followPrivate(ctx, w, off, n)
	}
	b.Close()
	b.f, b.started = f, started
	b.read(b.want.options(b.size))
	b.holdIfAll()
	return b.WriteRange(ctx, w, off, n)
}

// writeCached writes the content that another download has cached in the
// meantime.
func (b *flightBlob) writeCached(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	if err := b.source.p.confirm(ctx, b.source.u, b.source.repo, b.source.digest); err != nil {
		return 0, err
	}
	cached, err := b.source.p.openCached(ctx, b.source.u, b.source.repo, b.source.digest)
	if err != nil {
		return 0, fmt.Errorf("blob %s: %w: %w", b.source.digest, upstream.ErrUnavailable, err)
	}
	defer cached.Close()
	return cached.WriteRange(ctx, w, off, n)
}

// confirm makes sure that the client may read what a download brings that may
// be another repository's.
func (b *flightBlob) confirm(ctx context.Context, f *flight.Flight) error {
	return b.source.p.confirmJoined(ctx, f, b.source.u, b.source.repo, b.source.digest)
}
