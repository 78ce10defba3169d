package pull

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/entrepot/entrepot/upstream"
)

// inFlight is a blob that is on its way, as one client sees it.
type inFlight struct {
	p       *Puller
	u       Upstream
	repo    Repository
	f       *flight
	started bool // this client's request started the flight
	size    int64
	passed  bool
	mends   bool // it takes the place of a kept file: nothing is fetched twice for that
}

func (b *inFlight) Digest() Digest { return b.f.digest }
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
	b.f.store.release()
	return nil
}

// WriteRange follows the flight, or passes a range through that lies far
// ahead of it.
func (b *inFlight) WriteRange(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	if b.shouldPass(off, n) {
		written, err := b.pass(ctx, w, off, n)
		if written > 0 || err == nil {
			b.passed = true
			return written, err
		}
		b.p.log.Debug("range is waited for", "digest", b.f.digest.String(), "offset", off, "error", err)
	}
	written, err := b.follow(ctx, w, off, n)
	switch {
	case err == nil || written > 0 || ctx.Err() != nil:
		return written, err
	case errors.Is(err, errLost):
		return b.alone(ctx, w, off, n)
	case !b.started && b.f.repo != b.repo:
		// The flight failed on another repository's credentials or contents.
		f, started, err := b.p.fly(b.u, b.repo, Descriptor{Digest: b.f.digest, Size: b.size}, false, nil)
		if err != nil {
			return 0, err
		}
		if f == nil {
			return b.landed(ctx, w, off, n)
		}
		b.f.store.release()
		b.f, b.started = f, started
		return b.follow(ctx, w, off, n)
	}
	return 0, err
}

// landed writes what another's flight has brought to the disk meanwhile.
func (b *inFlight) landed(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	kept, err := b.p.openKept(ctx, b.u, b.repo, b.f.digest)
	if err != nil {
		return 0, fmt.Errorf("blob %s: %w: %w", b.f.digest, upstream.ErrUnavailable, err)
	}
	defer kept.Close()
	return kept.WriteRange(ctx, w, off, n)
}

// shouldPass says whether a range is better fetched by itself than waited for.
// A range without an end waits, so that many of them over one blob are one
// download (wire fact W21), but for the client whose resumption started it.
func (b *inFlight) shouldPass(off, n int64) bool {
	if b.mends || n < 0 && !b.started {
		return false
	}
	b.f.mu.Lock()
	defer b.f.mu.Unlock()
	return b.f.state != landed && off > b.f.written+farAhead
}

// follow writes n bytes from off as they arrive.
func (b *inFlight) follow(ctx context.Context, w io.Writer, off, n int64) (written int64, err error) {
	r := b.f.store.reader(off)
	defer r.close()
	for n < 0 || written < n {
		at := off + written
		tip, err := b.f.reach(ctx, at)
		if err != nil {
			return written, err
		}
		if tip == at {
			if n >= 0 {
				return written, io.ErrUnexpectedEOF
			}
			return written, nil
		}
		want := min(piece, tip-at)
		if n >= 0 {
			want = min(want, n-written)
		}
		wrote, err := r.next(w, want)
		written += wrote
		if err != nil {
			return written, fmt.Errorf("blob %s: %w", b.f.digest, err)
		}
	}
	return written, nil
}

// pass writes n bytes from off straight from the upstream, without keeping
// them: the flight brings them too, in its own time.
func (b *inFlight) pass(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	content, err := b.u.Registry.Blob(ctx, b.repo.Name, b.f.digest, off, n)
	if err != nil {
		return 0, err
	}
	defer content.Body.Close()
	if content.From != off {
		return 0, fmt.Errorf("%w: no ranges", upstream.ErrUnsupported)
	}
	if n < 0 {
		n = b.size - off
	}
	buf := make([]byte, copyBuffer)
	var written int64
	for written < n {
		got, err := content.Body.Read(buf[:min(int64(len(buf)), n-written)])
		tell2(b.p.opts.Events.Received, b.u.Name, int64(got))
		if got > 0 {
			wrote, err := w.Write(buf[:got])
			written += int64(wrote)
			if err != nil {
				return written, err
			}
		}
		if err != nil && written < n {
			return written, endOf(err)
		}
	}
	return written, nil
}

// alone serves one client whose bytes a flight without a disk no longer has,
// by a flight of its own that nobody else sees. A part needs no proof and is
// passed through.
func (b *inFlight) alone(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	if off > 0 || n >= 0 && n < b.size {
		b.passed = true
		return b.pass(ctx, w, off, n)
	}
	f := b.p.newFlight(b.repo, Descriptor{Digest: b.f.digest, Size: b.size}, false)
	f.store.patient = true
	f.store.hold()
	b.p.launch(b.u, f)
	own := &inFlight{p: b.p, u: b.u, repo: b.repo, f: f, started: true, size: b.size}
	defer own.Close()
	return own.follow(ctx, w, off, n)
}

// await returns once ready does, which is called with f.mu held.
func (f *flight) await(ctx context.Context, ready func() bool) error {
	for {
		f.mu.Lock()
		if ready() {
			f.mu.Unlock()
			return nil
		}
		if f.changed == nil {
			f.changed = make(chan struct{})
		}
		changed := f.changed
		f.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// reach waits until bytes past off may be read, and returns how far reading
// may go. At the end of the blob it returns off itself.
func (f *flight) reach(ctx context.Context, off int64) (int64, error) {
	var tip int64
	var err error
	waitErr := f.await(ctx, func() bool {
		switch f.state {
		case landed:
			tip = f.written
			return true
		case lost:
			err = f.err
			return true
		}
		switch tip = f.written - heldBack; {
		case f.doubted:
			return false
		case f.size >= 0:
			tip = min(f.written, f.size-heldBack)
		case f.told >= 0:
			tip = min(tip, f.told-heldBack) // it may be more than that, or junk
		}
		return tip > off
	})
	if waitErr != nil {
		return 0, waitErr
	}
	return max(tip, off), err
}

// known waits until the upstream has answered and returns the blob's size.
func (f *flight) known(ctx context.Context) (int64, error) {
	var size int64
	var err error
	waitErr := f.await(ctx, func() bool {
		size, err = f.size, nil
		if f.state == lost {
			err = f.err
		}
		return f.state != waiting
	})
	if waitErr != nil {
		return 0, waitErr
	}
	return size, err
}

// flowingSize is the blob's size where an upstream is sending it, or has.
func (f *flight) flowingSize() (size int64, ok bool) {
	if f == nil {
		return 0, false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.size, f.size >= 0 && (f.state == flowing || f.state == landed)
}
