package warm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/background"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/proxy/retention"
	"github.com/entrepot/entrepot/proxy/store"
)

const (
	// pinInterval is how often pinned images are checked that are incomplete, or
	// whose repository has changed; allPinsInterval is how often all are.
	pinInterval     = time.Minute
	allPinsInterval = time.Hour
	// maxManifests is how many manifests are fetched for one pin, including
	// referrers.
	maxManifests = 10_000
	// parallelBlobs is how many blobs of a pinned image are fetched in
	// parallel.
	parallelBlobs = 4
)

// PinnerOptions are the dependencies and settings of a Pinner.
type PinnerOptions struct {
	Fetcher   *Fetcher
	Puller    *pull.Puller
	Retention *retention.Retention
	Ledger    *metadata.Ledger
	Store     *store.Store
	// Work runs what continues when the caller of Pin has left.
	Work *background.Work
	// Configured are the images that the configuration pins by name. They are
	// fetched without being requested.
	Configured []Reference
	Logger     *slog.Logger
}

// Pinner completes pinned images. All methods are safe for concurrent use.
type Pinner struct {
	*Fetcher // pins are fetched as anything else is

	opts        PinnerOptions
	log         *slog.Logger
	completions singleflight.Group // by repository and reference
	tagMoved    chan struct{}      // receives when a pinned tag has moved
	checked     checked
}

// NewPinner returns a Pinner. It fetches nothing before Pin or Run is called.
func NewPinner(opts PinnerOptions) *Pinner {
	return &Pinner{Fetcher: opts.Fetcher, opts: opts, log: opts.Logger, tagMoved: make(chan struct{}, 1)}
}

// selection is what of an image its pin is for.
func (p *Pinner) selection(r Reference) retention.Selection {
	if p.opts.Ledger.IsPinnedByConfig(r.Repository, r.Ref) {
		return retention.EverythingOf(r)
	}
	scope := p.opts.Ledger.PinScope(r)
	platforms, err := retention.ParsePlatforms(scope.Platforms)
	if err != nil {
		platforms = nil // they were read when they were written
	}
	return retention.Selection{Image: r, Platforms: platforms, Referrers: !scope.NoReferrers}
}

// Pin pins an image and completes it: it fetches every platform and all
// referrers. If it returns ErrIncomplete, the image is pinned and Run will try
// again. An image that the upstream does not have is not pinned.
func (p *Pinner) Pin(ctx context.Context, r Reference) (Completion, error) {
	if err := p.opts.Puller.Check(r.Repository); err != nil {
		return Completion{}, err
	}
	had := p.opts.Ledger.HasPin(r.Repository, r.Ref)
	p.opts.Ledger.PutPin(r) // first, so that nothing of it is evicted meanwhile
	if err := p.opts.Ledger.Flush(ctx); err != nil {
		return Completion{}, fmt.Errorf("pin %s: %w", r, err)
	}
	done, err := p.complete(ctx, r)
	if errors.Is(err, errNoImage) && !had {
		p.opts.Ledger.DropPin(r)
	}
	return done, err
}

// Unpin removes a pin, and says whether there was one.
func (p *Pinner) Unpin(ctx context.Context, r Reference) (bool, error) {
	if !p.opts.Ledger.HasPin(r.Repository, r.Ref) {
		return false, nil
	}
	p.opts.Ledger.DropPin(r)
	return true, p.opts.Ledger.Flush(ctx)
}

// Pins returns the images that were pinned with Pin, sorted by name.
func (p *Pinner) Pins() ([]Reference, error) { return p.opts.Ledger.Pins() }

// TagMoved checks a pinned tag again, because it points at another manifest
// now.
func (p *Pinner) TagMoved(repo Repository, tag string) {
	if !p.opts.Ledger.IsPinned(repo, tag) {
		return
	}
	select {
	case p.tagMoved <- struct{}{}:
	default:
	}
}

// Run completes pinned images until ctx is done.
func (p *Pinner) Run(ctx context.Context) {
	p.opts.Ledger.FollowChanges()
	tick := time.NewTicker(pinInterval)
	defer tick.Stop()
	// Without a backoff, an image that does not fit would be downloaded again
	// and again, and an upstream that fails or refuses would be asked every
	// minute.
	failed := map[Reference]*background.Backoff{}
	for {
		for _, r := range p.incomplete(ctx) {
			if ctx.Err() != nil {
				return
			}
			if failed[r].IsOver() {
				p.attempt(ctx, r, failed)
			}
		}
		select {
		case <-p.tagMoved:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// attempt completes an image, and sets its backoff if that fails.
func (p *Pinner) attempt(ctx context.Context, r Reference, failed map[Reference]*background.Backoff) {
	done, err := p.complete(ctx, r)
	if err == nil {
		delete(failed, r)
	} else if failed[r] == nil {
		failed[r] = &background.Backoff{}
	}
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, cache.ErrFull):
		p.log.Error("pinned image does not fit", "image", r.String(), "again_in", failed[r].Extend(minBackoff, maxBackoffFull).String(), "error", err)
	case err != nil:
		p.log.Warn("pinned image is incomplete", "image", r.String(), "again_in", failed[r].Extend(minBackoff, maxBackoff).String(), "error", err)
	case done.Fetched > 0:
		p.log.Info("pinned image is complete", "image", r.String(), "fetched", done.Fetched, "bytes", done.Bytes)
	}
}

// complete fetches all of an image. Concurrent calls for one image share the
// work, which continues when the caller leaves.
func (p *Pinner) complete(ctx context.Context, r Reference) (Completion, error) {
	if err := p.opts.Puller.Check(r.Repository); err != nil {
		return Completion{}, err
	}
	of := p.selection(r) // a pin may be for more by now than one that is being completed
	key := metadata.Key(r.Repository, r.Ref) + fmt.Sprintf("\x00%q\x00%t", retention.FormatPlatforms(of.Platforms), of.Referrers)
	return background.Share(ctx, p.opts.Work, &p.completions, key, func(ctx context.Context) (Completion, error) {
		return p.Fetch(ctx, of, FetchOptions{Jobs: parallelBlobs, Unchecked: true})
	})
}
