package pull

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/metadata"
)

const (
	// tendPins is how often pinned images are looked at that are not whole.
	tendPins = time.Minute
	// longestRest is how long at most a pinned image is left alone for which
	// there was no room.
	longestRest = 6 * time.Hour
	// maxPinned is how many manifests one pin can bring here, with everything
	// that hangs on them.
	maxPinned = 10_000
	// broughtAtOnce is how many blobs of a pinned image are fetched side by side.
	broughtAtOnce = 4
)

var (
	// ErrNotWhole says that not all of a pinned image could be had now.
	ErrNotWhole = errors.New("not whole yet")
	// errNoImage says that the upstream gives no such image away.
	errNoImage = errors.New("the upstream does not give it away")
)

// Pin keeps an image, and makes it whole: every platform of it, and whatever
// hangs on it. The pin holds also where it returns ErrNotWhole; then it is
// tried again. What the upstream says is not there is not pinned.
func (p *Puller) Pin(ctx context.Context, r Reference) (Completion, error) {
	if _, err := p.admit(r.Repository); err != nil {
		return Completion{}, err
	}
	had := p.meta.HasPin(r.Repository, r.Ref)
	p.meta.PutPin(r) // first, so that nothing of it is evicted while it comes
	if err := p.opts.Records.Flush(ctx); err != nil {
		return Completion{}, fmt.Errorf("pin %s: %w", r, err)
	}
	done, err := p.complete(ctx, r)
	if errors.Is(err, errNoImage) && !had {
		p.meta.DropPin(r)
	}
	return done, err
}

// Unpin ends a pin, and says whether there was one.
func (p *Puller) Unpin(ctx context.Context, r Reference) (bool, error) {
	if !p.meta.HasPin(r.Repository, r.Ref) {
		return false, nil
	}
	p.meta.DropPin(r)
	return true, p.opts.Records.Flush(ctx)
}

// Pins are those that Pin made, in the order of their names.
func (p *Puller) Pins() ([]Reference, error) { return p.meta.Pins() }

// pinned says whether a manifest stays, by the configuration or by a command.
func (p *Puller) pinned(n *keptNode) bool {
	return slices.ContainsFunc(append(slices.Clone(n.tags), n.digest.String()), func(ref string) bool { return p.meta.IsPinned(n.repo, ref) })
}

// tendPinned makes pinned images whole, and keeps them so.
func (p *Puller) tendPinned(ctx context.Context) {
	if p.opts.Offline {
		return
	}
	tick := time.NewTicker(tendPins)
	defer tick.Stop()
	// An image that does not fit would be downloaded again and again, and an
	// upstream that fails or refuses would be asked each time.
	failed := map[Reference]*rest{}
	for {
		for _, r := range p.unfinished(ctx) {
			if ctx.Err() != nil {
				return
			}
			if w := failed[r]; w != nil && time.Now().Before(w.until) {
				continue
			}
			done, err := p.complete(ctx, r)
			if err == nil {
				delete(failed, r)
			} else if failed[r] == nil {
				failed[r] = &rest{}
			}
			switch {
			case ctx.Err() != nil:
			case errors.Is(err, cache.ErrFull):
				p.log.Error("pinned image does not fit", "image", r.String(), "again_in", failed[r].longer(longestRest).String(), "error", err)
			case err != nil:
				p.log.Warn("pinned image is not whole yet", "image", r.String(), "again_in", failed[r].longer(longestLesson).String(), "error", err)
			case done.Fetched > 0:
				p.log.Info("pinned image is whole", "image", r.String(), "fetched", done.Fetched, "bytes", done.Bytes)
			}
		}
		select {
		case <-p.moved:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// rest is how long something is left alone that has failed again and again.
type rest struct {
	wait  time.Duration
	until time.Time
}

// longer doubles the rest, up to most.
func (r *rest) longer(most time.Duration) time.Duration {
	r.wait = min(max(2*r.wait, 2*tendPins), most)
	r.until = time.Now().Add(r.wait)
	return r.wait
}

// unfinished are the pinned images that are not known to be whole.
func (p *Puller) unfinished(ctx context.Context) []Reference {
	all, err := p.Pins()
	if err != nil {
		p.log.Error("pins cannot be read", "error", err)
	}
	all = append(all, p.opts.Pins...)
	if p.opts.Room.Pinned != nil {
		// Patterns pin what has been pulled.
		err := p.meta.EachTag(func(repo Repository, tag string, _ Digest) {
			if p.meta.IsConfigured(repo, tag) {
				all = append(all, Reference{Repository: repo, Ref: tag})
			}
		})
		if err != nil {
			p.log.Error("tags cannot be read", "error", err)
		}
	}
	return slices.DeleteFunc(all, func(r Reference) bool { return p.whole(ctx, r, true) })
}

// Completion says what it took to make an image whole.
type Completion struct {
	Manifests int   `json:"manifests"`
	Blobs     int   `json:"blobs"`
	Fetched   int   `json:"fetched"` // manifests and blobs that were not here
	Bytes     int64 `json:"bytes"`   // of these
}

// complete brings everything of an image here, once at a time for one image.
// It goes on when the caller leaves.
func (p *Puller) complete(ctx context.Context, r Reference) (Completion, error) {
	u, err := p.admit(r.Repository)
	if err != nil {
		return Completion{}, err
	}
	return share(ctx, p, &p.completions, metadata.Key(r.Repository, r.Ref), func(ctx context.Context) (Completion, error) {
		return p.bringImage(ctx, u, r)
	})
}

// bringImage goes on where a part can't be had, and then returns why, as
// ErrNotWhole.
func (p *Puller) bringImage(ctx context.Context, u Upstream, r Reference) (Completion, error) {
	var done Completion
	var wrong []error
	seen := map[string]bool{r.Ref: true}
	for queue := []string{r.Ref}; len(queue) > 0 && ctx.Err() == nil; queue = queue[1:] {
		_, here := p.keptManifest(ctx, r.Repository, Digest(queue[0]))
		m, err := p.Manifest(ctx, r.Repository, queue[0])
		switch {
		case err != nil && queue[0] == r.Ref && !cannotTell(err):
			return done, fmt.Errorf("%w: %w", errNoImage, err)
		case err != nil:
			wrong = append(wrong, err)
			continue
		}
		done.Manifests++
		if !here && m.Outcome == Miss {
			done.Fetched++
			done.Bytes += m.Descriptor.Size
		}
		rec, _ := p.meta.Manifest(r.Repository, m.Descriptor.Digest)
		next := rec.Children
		hang, err := p.Referrers(ctx, r.Repository, m.Descriptor.Digest)
		if _, known := p.meta.Referrers(r.Repository, m.Descriptor.Digest); err == nil && !known {
			err = errStillUnknown // and part of being whole
		}
		if err != nil {
			wrong = append(wrong, err)
		}
		for _, d := range slices.Concat(next, hang.Manifests) {
			if ref := d.Digest.String(); !seen[ref] && len(seen) < maxPinned {
				seen[ref] = true
				queue = append(queue, ref)
			}
		}
		if err := p.bringBlobs(ctx, u, r.Repository, rec.Blobs, &done); err != nil {
			wrong = append(wrong, err)
		}
	}
	if len(wrong) == 0 && !p.whole(ctx, r, false) {
		wrong = append(wrong, errors.New("a part could not be kept, or went again"))
	}
	if err := errors.Join(wrong...); err != nil {
		return done, fmt.Errorf("%s is %w: %w", r, ErrNotWhole, err)
	}
	return done, ctx.Err()
}

func (p *Puller) bringBlobs(ctx context.Context, u Upstream, repo Repository, blobs []Descriptor, done *Completion) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(broughtAtOnce)
	for _, d := range blobs {
		if len(d.URLs) > 0 {
			continue // clients fetch those elsewhere (W9)
		}
		done.Blobs++
		if _, err := p.opts.Blobs.Stat(ctx, d.Digest); err == nil {
			continue
		}
		done.Fetched++
		done.Bytes += d.Size
		group.Go(func() error { return p.bring(ctx, u, repo, d) })
	}
	return group.Wait()
}

// bring downloads a blob for nobody but the cache.
func (p *Puller) bring(ctx context.Context, u Upstream, repo Repository, want Descriptor) error {
	if p.opts.Offline {
		return fmt.Errorf("blob %s of %s: %w", want.Digest, repo, ErrOffline)
	}
	f, _, err := p.fly(u, repo, want, false, nil)
	if err != nil {
		return err
	}
	if f == nil {
		return nil // it has landed meanwhile
	}
	defer f.store.release()
	select {
	case <-f.over:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	f.mu.Lock()
	err = f.err
	f.mu.Unlock()
	if err != nil {
		return err
	}
	if _, err := p.opts.Blobs.Stat(ctx, want.Digest); err != nil {
		return fmt.Errorf("blob %s of %s: %w", want.Digest, repo, cache.ErrFull)
	}
	return nil
}

// whole says whether an image is here with every platform, and every blob of
// it, and of what hangs on it as far as that is known here, which has to be
// known where asked says so. It asks nobody.
func (p *Puller) whole(ctx context.Context, r Reference, asked bool) bool {
	d, err := digest.Parse(r.Ref)
	if err != nil {
		rec, ok := p.meta.Tag(r.Repository, r.Ref)
		if !ok {
			return false
		}
		d = rec.Descriptor.Digest
	}
	seen := map[Digest]bool{d: true}
	for queue := []Digest{d}; len(queue) > 0; queue = queue[1:] {
		rec, ok := p.meta.Manifest(r.Repository, queue[0])
		if !ok || !p.has(ctx, queue[0]) {
			return false
		}
		for _, b := range rec.Blobs {
			if len(b.URLs) == 0 && !p.has(ctx, b.Digest) {
				return false
			}
		}
		hang, known := p.meta.Referrers(r.Repository, queue[0])
		if asked && !known {
			return false
		}
		for _, d := range slices.Concat(rec.Children, hang.Manifests) {
			if !seen[d.Digest] {
				seen[d.Digest] = true
				queue = append(queue, d.Digest)
			}
		}
	}
	return true
}

func (p *Puller) has(ctx context.Context, d Digest) bool {
	_, err := p.opts.Blobs.Stat(ctx, d)
	return err == nil
}
