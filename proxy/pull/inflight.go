package pull

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/entrepot/entrepot/proxy/flight"
	"github.com/entrepot/entrepot/upstream"
)

// inFlight is a blob that is being downloaded, as one client sees it. The client
// may have joined a download of another repository: from is its own way to the
// blob.
type inFlight struct {
	from    *blobSource
	f       *flight.Flight
	started bool // this client's request started the download
	size    int64
	passed  bool
	heals   bool // it takes the place of a kept file: nothing is fetched twice for that
}

func (b *inFlight) Digest() Digest { return b.from.digest }
func (b *inFlight) Size() int64    { return b.size }

func (b *inFlight) Outcome() Outcome {
	switch {
	case b.passed:
		return Passed
	case b.started:
		return Miss
	}
	return Joined
}

func (b *inFlight) Close() error {
	b.f.Release()
	return nil
}

// WriteRange follows the download, or passes a range through that lies far
// ahead of it.
func (b *inFlight) WriteRange(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	if b.shouldPass(off, n) {
		written, err := b.pass(ctx, w, off, n)
		if written > 0 || err == nil {
			b.passed = true
			return written, err
		}
		b.from.p.log.Debug("range is waited for", "digest", b.from.digest.String(), "offset", off, "error", err)
	}
	written, err := b.f.Follow(ctx, w, off, n)
	switch {
	case err == nil || written > 0 || ctx.Err() != nil:
		return written, err
	case errors.Is(err, flight.ErrLeftBehind):
		return b.alone(ctx, w, off, n)
	case !b.started && through(b.f) != b.from.repo:
		return b.again(ctx, w, off, n)
	}
	return 0, err
}

// shouldPass says whether a range is better fetched by itself than waited for.
// A range without an end waits, so that many of them over one blob are one
// download (wire fact W21), but for the client whose resumption started it.
func (b *inFlight) shouldPass(off, n int64) bool {
	if b.heals || n < 0 && !b.started {
		return false
	}
	come, whole := b.f.Progress()
	return !whole && off > come+farAhead
}

// pass writes n bytes from off straight from the upstream, without keeping
// them: the download brings them too, in its own time.
func (b *inFlight) pass(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	return b.f.Pass(ctx, w, b.from, off, n, b.from.Received)
}

// alone serves one client whose bytes a download without a disk no longer has,
// by one that nobody else joins. A part needs no proof and is passed through.
func (b *inFlight) alone(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	if off > 0 || n >= 0 && n < b.size {
		b.passed = true
		return b.pass(ctx, w, off, n)
	}
	f := b.from.p.flights.Alone(b.from.want(b.size), b.from.start())
	defer f.Release()
	return f.Follow(ctx, w, off, n)
}

// again serves one client whose download failed on the credentials or the
// contents of another repository: through its own.
func (b *inFlight) again(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	f, started, err := b.from.p.flights.Join(b.from.want(b.size), b.from.start())
	if err != nil {
		return 0, err
	}
	if f == nil {
		return b.fromKept(ctx, w, off, n)
	}
	b.f.Release()
	b.f, b.started = f, started
	return f.Follow(ctx, w, off, n)
}

// fromKept writes what another's download has stored meanwhile.
func (b *inFlight) fromKept(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	kept, err := b.from.p.openKept(ctx, b.from.u, b.from.repo, b.from.digest)
	if err != nil {
		return 0, fmt.Errorf("blob %s: %w: %w", b.from.digest, upstream.ErrUnavailable, err)
	}
	defer kept.Close()
	return kept.WriteRange(ctx, w, off, n)
}
