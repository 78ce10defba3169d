package warm

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/limits/panics"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/proxy/retention"
	"github.com/entrepot/entrepot/proxy/store"
)

// FetcherOptions are the dependencies of a Fetcher.
type FetcherOptions struct {
	Puller    *pull.Puller
	Retention *retention.Retention
	Ledger    *metadata.Ledger
	Store     *store.Store
}

// Fetcher fetches what is wanted of images, by the rules of a pull: what a
// client requests meanwhile is requested once. All methods are safe for
// concurrent use.
type Fetcher struct {
	opts  FetcherOptions
	holds holds
}

// NewFetcher returns a Fetcher.
func NewFetcher(opts FetcherOptions) *Fetcher { return &Fetcher{opts: opts} }

// FetchOptions say how images are fetched.
type FetchOptions struct {
	// Jobs is how many requests are under way at a time. Zero means DefaultJobs.
	Jobs int
	// MaxWait is how long anything waits for an upstream that limits its rate.
	MaxWait time.Duration
	// Attempts is how often something is requested if the upstream can't be
	// asked. Zero means once.
	Attempts int
	// Unchecked means that a tag's cached image will do if the upstream can't
	// be asked what the tag points at.
	Unchecked bool
	// Report is called with each event, one at a time. It may be nil.
	Report func(Event)
}

// DefaultJobs is how many requests are under way at a time.
const DefaultJobs = 8

// run is what several images share that are fetched together.
type run struct {
	fetcher *Fetcher
	opts    FetchOptions
	slots   chan struct{}

	mu    sync.Mutex
	busy  map[Digest]chan struct{} // blobs that are being fetched
	found map[Digest]bool          // blobs that are fetched, or were
	told  map[limitClass]time.Time // what was told of waiting

	reporting sync.Mutex
}

func (f *Fetcher) newRun(opts FetchOptions) *run {
	if opts.Jobs <= 0 {
		opts.Jobs = DefaultJobs
	}
	return &run{fetcher: f, opts: opts, slots: make(chan struct{}, opts.Jobs), busy: map[Digest]chan struct{}{}, found: map[Digest]bool{}, told: map[limitClass]time.Time{}}
}

func (r *run) report(e Event) {
	if r.opts.Report != nil {
		r.reporting.Lock()
		defer r.reporting.Unlock()
		r.opts.Report(e)
	}
}

func (r *run) isNews(of limitClass, until time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.told[of].Equal(until) {
		return false
	}
	r.told[of] = until
	return true
}

// isFirst says whether nobody of the run has found a blob before.
func (r *run) isFirst(d Digest) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.found[d]
	r.found[d] = true
	return !was
}

// enter waits until nobody else of the run fetches a blob. leave lets others.
func (r *run) enter(ctx context.Context, d Digest) (leave func(), err error) {
	for {
		r.mu.Lock()
		other, ok := r.busy[d]
		if !ok {
			mine := make(chan struct{})
			r.busy[d] = mine
			r.mu.Unlock()
			return func() {
				r.mu.Lock()
				delete(r.busy, d)
				r.mu.Unlock()
				close(mine)
			}, nil
		}
		r.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Fetch fetches what is wanted of an image. It goes on when a part cannot be
// fetched, and returns the reasons at the end, as ErrIncomplete. If the upstream
// does not have the image, it returns its error; if the image has none of the
// platforms, a *retention.NoPlatformError.
func (f *Fetcher) Fetch(ctx context.Context, of retention.Selection, opts FetchOptions) (Completion, error) {
	return f.newRun(opts).fetch(ctx, of)
}

func (r *run) fetch(ctx context.Context, of retention.Selection) (Completion, error) {
	if err := r.fetcher.opts.Puller.Check(of.Image.Repository); err != nil {
		return Completion{}, err
	}
	i := &imageFetch{run: r, of: of, steps: r.fetcher.opts.Retention.Steps(of), pending: make(chan struct{}, maxPending), manifests: 1}
	root, err := i.root(ctx)
	if err != nil {
		return i.done, err
	}
	of.At = root.Digest // the tag may move meanwhile: then it is for whoever looks next
	i.expand(ctx, i.steps.Root(root))
	i.tasks.Wait()
	if i.noPlatform != nil {
		return i.done, i.noPlatform
	}
	if ctx.Err() == nil && len(i.failed) == 0 && !r.fetcher.opts.Retention.HasAllOf(ctx, of, false) {
		i.fail(errors.New("a part could not be cached, or was evicted again"))
	}
	if ctx.Err() == nil && len(i.failed) == 0 {
		if err := r.fetcher.opts.Ledger.Flush(ctx); err != nil { // it is complete after a crash, too
			i.fail(err)
		}
	}
	if err := reasons(i.failed, i.unnamed); err != nil {
		return i.done, fmt.Errorf("%s is %w: %w", of.Image, ErrIncomplete, err)
	}
	return i.done, ctx.Err()
}

// maxPending is how many blobs of an image wait for their turn.
const maxPending = 256

// maxReasons is how many reasons are named why an image is incomplete.
const maxReasons = 20

type errMore int

func (n errMore) Error() string { return fmt.Sprintf("and %d more", int(n)) }

// imageFetch fetches one image.
type imageFetch struct {
	*run

	of    retention.Selection
	steps *retention.Steps
	tasks sync.WaitGroup
	// pending has a place for each blob that waits for its turn.
	pending chan struct{}

	state      sync.Mutex // guards the rest
	manifests  int
	done       Completion
	failed     []error
	unnamed    int // failures that are not among failed
	noPlatform error
}

func (i *imageFetch) repo() Repository { return i.of.Image.Repository }

func (i *imageFetch) class(blobs bool) limitClass {
	return limitClass{upstream: i.repo().Upstream, blobs: blobs}
}

func (i *imageFetch) fail(err error) {
	i.state.Lock()
	defer i.state.Unlock()
	if len(i.failed) < maxReasons {
		i.failed = append(i.failed, err)
	} else {
		i.unnamed++
	}
}

func (i *imageFetch) count(what Completion) {
	i.state.Lock()
	defer i.state.Unlock()
	i.done.add(what)
}

// event is one about something of the image.
func (i *imageFetch) event(kind EventKind, part retention.PartKind, of Descriptor) Event {
	return Event{Event: kind, Image: i.of.Image.String(), Kind: part, Digest: of.Digest, Size: of.Size}
}

// root fetches the image's own manifest.
func (i *imageFetch) root(ctx context.Context) (Descriptor, error) {
	ref := i.of.Image.Ref
	if _, err := digest.Parse(ref); err != nil && i.of.At != "" {
		// The tag is only looked at.
		m, err := i.get(ctx, ref)
		switch {
		case err != nil:
			i.report(Event{Event: EventNote, Image: i.of.Image.String(), Text: fmt.Sprintf("the tag could not be looked at, %s is fetched by its digest: %v", i.of.At, err)})
		case m.Digest != i.of.At:
			i.report(Event{Event: EventNote, Image: i.of.Image.String(), Text: fmt.Sprintf("the tag is at %s, not at %s, which is fetched by its digest", m.Digest, i.of.At)})
		default:
			return m, nil
		}
		ref = i.of.At.String()
	}
	m, err := i.get(ctx, ref)
	if err != nil && !pull.IsInconclusive(err) && ctx.Err() == nil {
		return m, fmt.Errorf("%w: %w", errNoImage, err)
	}
	if err != nil {
		return m, fmt.Errorf("%s is %w: %w", i.of.Image, ErrIncomplete, err)
	}
	return m, nil
}

// get fetches a manifest, unless it is cached and, for a tag, fresh.
func (i *imageFetch) get(ctx context.Context, ref string) (Descriptor, error) {
	opts := i.fetcher.opts
	get := opts.Puller.RenewManifest
	if i.opts.Unchecked {
		get = opts.Puller.WaitForManifest
	}
	here := opts.Ledger.HasManifest(i.repo(), Digest(ref)) && opts.Store.Has(ctx, Digest(ref))
	var m pull.Manifest
	err := i.request(ctx, i.class(false), func() (err error) {
		defer panics.Catch("manifest of an image that is fetched", &err)
		m, err = get(ctx, i.repo(), ref)
		return err
	})
	if err != nil {
		return Descriptor{}, err
	}
	did := Completion{Manifests: 1}
	if !here && m.Outcome == pull.Miss {
		did.Fetched, did.Bytes = 1, m.Descriptor.Size
		i.report(i.event(EventDone, retention.PartManifest, m.Descriptor))
	}
	i.count(did)
	return m.Descriptor, nil
}

// manifest fetches a manifest beside what is under way, and goes into it.
func (i *imageFetch) manifest(ctx context.Context, step retention.Step) {
	i.state.Lock()
	i.manifests++
	tooMany := i.manifests > maxManifests
	i.state.Unlock()
	if tooMany || ctx.Err() != nil {
		return
	}
	i.tasks.Go(func() {
		if !step.Again {
			if _, err := i.get(ctx, step.Of.Digest.String()); err != nil {
				i.report(failedEvent(i.event(EventFailed, retention.PartManifest, step.Of), err))
				i.fail(err)
				return
			}
		}
		i.expand(ctx, step)
	})
}

func failedEvent(e Event, err error) Event {
	e.Error = err.Error()
	return e
}

// expand goes into a manifest that was fetched.
func (i *imageFetch) expand(ctx context.Context, step retention.Step) {
	err := i.steps.Into(ctx, step, func(next retention.Step) { i.manifest(ctx, next) }, func(p retention.Part) bool { return i.blob(ctx, p) })
	var none *retention.NoPlatformError
	switch {
	case errors.As(err, &none):
		i.state.Lock()
		i.noPlatform = err
		i.state.Unlock()
	case err != nil:
		i.fail(err)
	}
	if none == nil && i.of.Referrers && !step.LeftOut {
		i.tasks.Go(func() { i.referrers(ctx, step.Of) })
	}
}

// referrers asks what refers to a manifest.
func (i *imageFetch) referrers(ctx context.Context, subject Descriptor) {
	opts := i.fetcher.opts
	err := i.request(ctx, i.class(false), func() (err error) {
		defer panics.Catch("referrers of an image that is fetched", &err)
		return opts.Puller.FetchReferrers(ctx, i.repo(), subject.Digest)
	})
	listed, known := opts.Ledger.Referrers(i.repo(), subject.Digest)
	if !known {
		listed.Manifests = opts.Ledger.Seen(i.repo(), subject.Digest)
		if err == nil {
			err = pull.ErrIncomplete // they are part of a complete image
		}
	}
	if err != nil {
		i.report(failedEvent(i.event(EventFailed, retention.PartReferrers, subject), err))
		i.fail(err)
	}
	i.steps.Refer(subject.Digest, listed.Manifests, func(next retention.Step) { i.manifest(ctx, next) })
}

// blob fetches a blob beside what is under way. It returns false if there is no
// reason to go on.
func (i *imageFetch) blob(ctx context.Context, p retention.Part) bool {
	if p.State == retention.PartForeign || p.State == retention.PartLeftOut {
		return true
	}
	i.count(Completion{Blobs: 1})
	if p.State == retention.PartKept {
		return true
	}
	here := i.fetcher.opts.Store.Has(ctx, p.Of.Digest)
	if !here && i.isFirst(p.Of.Digest) {
		i.report(i.event(EventFound, p.Kind, p.Of))
	}
	select { // a wide manifest names a hundred thousand
	case i.pending <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	i.tasks.Go(func() {
		defer func() { <-i.pending }()
		if err := i.fetchBlob(ctx, p.Of, here); err != nil {
			i.report(failedEvent(i.event(EventFailed, retention.PartBlob, p.Of), err))
			i.fail(err)
		}
	})
	return true
}

func (i *imageFetch) fetchBlob(ctx context.Context, blob Descriptor, here bool) error {
	leave, err := i.enter(ctx, blob.Digest)
	if err != nil {
		return err
	}
	defer leave()
	if !here && !i.fetcher.opts.Store.Has(ctx, blob.Digest) {
		i.count(Completion{Fetched: 1, Bytes: max(blob.Size, 0)})
	} else {
		here = true // another image has brought it
	}
	begun := false
	tell := func(e Event) {
		if !here {
			i.report(e)
		}
	}
	err = i.request(ctx, i.class(true), func() (err error) {
		defer panics.Catch("blob of an image that is fetched", &err)
		if !begun {
			begun = true
			tell(i.event(EventStarted, retention.PartBlob, blob))
		}
		return i.fetcher.opts.Puller.WatchBlob(ctx, i.repo(), blob, func(bytes int64) {
			e := i.event(EventProgress, retention.PartBlob, blob)
			e.Bytes = bytes
			tell(e)
		})
	})
	if err == nil {
		tell(i.event(EventDone, retention.PartBlob, blob))
	}
	return err
}
