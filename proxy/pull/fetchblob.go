package pull

import (
	"context"
	"fmt"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/flight"
)

// FetchBlob caches a blob unless it is cached already, and makes sure that it
// may be served for the repository. It does not count as a use. It returns
// cache.ErrFull if there is no room for the blob.
func (p *Puller) FetchBlob(ctx context.Context, repo Repository, want Descriptor) error {
	return p.WatchBlob(ctx, repo, want, nil)
}

// progressInterval is how often progress is told.
const progressInterval = 200 * time.Millisecond

// WatchBlob is FetchBlob, and tells how many bytes have come. progress may be
// nil.
func (p *Puller) WatchBlob(ctx context.Context, repo Repository, want Descriptor, progress func(bytes int64)) error {
	u, err := p.upstreamFor(repo)
	if err != nil {
		return err
	}
	if err := checkVerifiable(want.Digest); err != nil {
		return fmt.Errorf("blob of %s: %w", repo, err)
	}
	if u.Offline {
		return fmt.Errorf("blob %s of %s: %w", want.Digest, repo, ErrOffline)
	}
	if p.store.Outage() != nil {
		return fmt.Errorf("blob %s of %s: %w", want.Digest, repo, cache.ErrDown) // it may be there
	}
	f, _, err := p.flights.Join(want, p.newBlobSource(u, repo, want.Digest).startOptions())
	if err != nil {
		return err
	}
	if f == nil {
		return p.confirm(ctx, u, repo, want.Digest) // it is cached already
	}
	defer f.Release()
	if err := watch(ctx, f, progress); err != nil {
		return err
	}
	if err := f.Err(); err != nil {
		return err
	}
	if !p.store.Has(ctx, want.Digest) {
		return fmt.Errorf("blob %s of %s: %w", want.Digest, repo, cache.ErrFull)
	}
	return p.confirm(ctx, u, repo, want.Digest)
}

// watch waits for the end of a download.
func watch(ctx context.Context, f *flight.Flight, progress func(bytes int64)) error {
	var tick <-chan time.Time
	if progress != nil {
		ticker := time.NewTicker(progressInterval)
		defer ticker.Stop()
		tick = ticker.C
	}
	for {
		select {
		case <-f.Done():
			return nil
		case <-tick:
			received, _ := f.Progress()
			progress(received)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
