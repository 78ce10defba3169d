package warm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/limits/panics"
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
	// partOfBlobs is how many of a wide image are looked at together.
	partOfBlobs = 256
)

// PinnerOptions are the dependencies and settings of a Pinner.
type PinnerOptions struct {
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
	opts        PinnerOptions
	log         *slog.Logger
	completions singleflight.Group // by repository and reference
	tagMoved    chan struct{}      // receives when a pinned tag has moved
	checked     checked
}

// NewPinner returns a Pinner. It fetches nothing before Pin or Run is called.
func NewPinner(opts PinnerOptions) *Pinner {
	return &Pinner{opts: opts, log: opts.Logger, tagMoved: make(chan struct{}, 1)}
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

// Completion says what it took to complete an image.
type Completion struct {
	Manifests int   `json:"manifests"`
	Blobs     int   `json:"blobs"`
	Fetched   int   `json:"fetched"` // manifests and blobs that were not cached
	Bytes     int64 `json:"bytes"`   // size of those
}

// complete fetches all of an image. Concurrent calls for one image share the
// work, which continues when the caller leaves.
func (p *Pinner) complete(ctx context.Context, r Reference) (Completion, error) {
	if err := p.opts.Puller.Check(r.Repository); err != nil {
		return Completion{}, err
	}
	return background.Share(ctx, p.opts.Work, &p.completions, metadata.Key(r.Repository, r.Ref), func(ctx context.Context) (Completion, error) {
		return p.fetch(ctx, r)
	})
}

// fetch continues when a part cannot be fetched, and returns the reasons at the
// end, as ErrIncomplete.
func (p *Pinner) fetch(ctx context.Context, r Reference) (Completion, error) {
	var done Completion
	var failed []error
	seen := map[string]bool{r.Ref: true}
	for queue := []string{r.Ref}; len(queue) > 0 && ctx.Err() == nil; queue = queue[1:] {
		_, onRecord := p.opts.Ledger.Manifest(r.Repository, Digest(queue[0]))
		here := onRecord && p.opts.Store.Has(ctx, Digest(queue[0]))
		m, err := p.opts.Puller.WaitForManifest(ctx, r.Repository, queue[0])
		switch {
		case err != nil && queue[0] == r.Ref && !pull.IsInconclusive(err):
			return done, fmt.Errorf("%w: %w", errNoImage, err)
		case err != nil:
			failed = append(failed, err)
			continue
		}
		done.Manifests++
		if !here && m.Outcome == pull.Miss {
			done.Fetched++
			done.Bytes += m.Descriptor.Size
		}
		rec, _ := p.opts.Ledger.Manifest(r.Repository, m.Descriptor.Digest)
		refer, err := p.opts.Puller.Referrers(ctx, r.Repository, m.Descriptor.Digest)
		// The answer itself does not name those of a long list that is kept.
		listed, known := p.opts.Ledger.Referrers(r.Repository, m.Descriptor.Digest)
		if err == nil && !known {
			err = pull.ErrIncomplete // they are part of a complete image
		}
		if err != nil {
			failed = append(failed, err)
		}
		add := func(d Descriptor) {
			if ref := d.Digest.String(); !seen[ref] && len(seen) < maxManifests {
				seen[ref] = true
				queue = append(queue, ref)
			}
		}
		err = p.eachPart(ctx, rec, m.Descriptor.Digest, add, func(blobs []Descriptor) error {
			return p.fetchBlobs(ctx, r.Repository, blobs, &done)
		})
		for _, d := range slices.Concat(refer.Manifests, listed.Manifests) {
			add(d)
		}
		if err != nil {
			failed = append(failed, err)
		}
	}
	if len(failed) == 0 && !p.opts.Retention.IsComplete(ctx, r, false) {
		failed = append(failed, errors.New("a part could not be cached, or was evicted again"))
	}
	if len(failed) == 0 {
		if err := p.opts.Ledger.Flush(ctx); err != nil { // it is complete after a crash, too
			failed = append(failed, err)
		}
	}
	if err := errors.Join(failed...); err != nil {
		return done, fmt.Errorf("%s is %w: %w", r, ErrIncomplete, err)
	}
	return done, ctx.Err()
}

// eachPart calls manifest for what a manifest lists, and blobs for what it names
// otherwise, in parts: a wide one names a hundred thousand. It returns the first
// errors of blobs.
func (p *Pinner) eachPart(ctx context.Context, rec metadata.Manifest, of Digest, manifest func(Descriptor), blobs func([]Descriptor) error) error {
	if !rec.Wide {
		for _, d := range rec.Children {
			manifest(d)
		}
		return blobs(rec.Blobs)
	}
	var part []Descriptor
	var failed []error
	flush := func() {
		if err := blobs(part); err != nil {
			failed = append(failed, err)
		}
		part = part[:0]
	}
	p.opts.Store.EachName(ctx, rec.MediaType, of, func(d Descriptor, isManifest bool) bool {
		if isManifest {
			manifest(d)
		} else if part = append(part, d); len(part) == partOfBlobs {
			flush()
		}
		return len(failed) < maxFailures && ctx.Err() == nil
	})
	flush()
	return errors.Join(failed...)
}

func (p *Pinner) fetchBlobs(ctx context.Context, repo Repository, blobs []Descriptor, done *Completion) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelBlobs)
	for _, d := range blobs {
		if len(d.URLs) > 0 {
			continue // clients fetch those from elsewhere (W9)
		}
		done.Blobs++
		here := p.opts.Store.Has(ctx, d.Digest)
		if here && p.opts.Ledger.Holds(repo, d.Digest) {
			continue
		}
		if !here {
			done.Fetched++
			done.Bytes += d.Size
		}
		group.Go(func() (err error) {
			defer panics.Catch("blob of a pinned image", &err)
			return p.opts.Puller.FetchBlob(ctx, repo, d)
		})
	}
	return group.Wait()
}
