package pull

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/entrepot/entrepot/proxy/flight"
	"github.com/entrepot/entrepot/upstream"
)

// While the disk is down, what is in memory is served, and the rest comes from
// the upstream, which nobody can be sure of having again. Where the upstream
// can't be asked, what is needed may be on the disk: then clients wait for that.

// duringOutage calls ask, and again after each outage of the disk in which the
// upstream could not be asked.
func duringOutage[T any](ctx context.Context, p *Puller, ask func() (T, error)) (T, error) {
	for {
		before := p.store.Outage()
		v, err := ask()
		if err == nil || !cannotBeAsked(err) || !p.awaitDisk(ctx, before) {
			return v, err
		}
	}
}

// cannotBeAsked says whether an error is that of an upstream that is away, or
// that may not be asked.
func cannotBeAsked(err error) bool {
	return errors.Is(err, upstream.ErrUnavailable) || errors.Is(err, ErrOffline)
}

// awaitDisk waits for the end of an outage: the one that was found before
// something failed, or one that has begun since. It returns false if there was
// none, or if ctx ends.
func (p *Puller) awaitDisk(ctx context.Context, outage <-chan struct{}) bool {
	if outage == nil {
		outage = p.store.Outage()
	}
	if outage == nil {
		return false
	}
	select {
	case <-outage:
		return true
	case <-ctx.Done():
		return false
	}
}

// withoutDisk writes n bytes starting at off while the disk is down: from the
// upstream, as far as it gets. If the upstream can't be asked, it waits until
// the disk is up again, and returns without an error.
func (b *diskBlob) withoutDisk(ctx context.Context, w io.Writer, off, n int64) (written int64, err error) {
	outage := b.p.store.Outage()
	if outage == nil {
		return 0, nil // it is up again
	}
	source := b.p.newBlobSource(b.u, b.repo, b.digest)
	written, err = flight.PassThrough(ctx, w, source, off, n, source.Received)
	b.passed = b.passed || written > 0
	if err == nil || cannotBeAsked(err) && b.p.awaitDisk(ctx, outage) {
		return written, nil
	}
	return written, fmt.Errorf("blob %s: %w", b.digest, err)
}
