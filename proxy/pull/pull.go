package pull

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/upstream"
)

// Bounds that protect the process, not the user's wishes: they are not
// configurable.
const (
	// maxManifest is the size in bytes of the largest manifest that is passed
	// on. Clients give up at about 4 MiB (wire fact W8).
	maxManifest = 8 << 20
	// maxAsk bounds one question to an upstream with everything behind it
	// (retries, the manifest after the HEAD), however long clients wait.
	maxAsk = 30 * time.Second
)

// Memory keeps small immutable content. It may forget at any time.
type Memory interface {
	Get(d Digest) ([]byte, bool)
	Put(d Digest, content []byte)
	Delete(d Digest)
}

// Upstream is one configured registry with what the configuration says of it.
type Upstream struct {
	Name     string
	Registry upstream.Registry
	// Allows says whether a repository may be pulled; nil allows all.
	Allows func(repository string) bool
	// Immutable says whether a tag is never checked again; nil means none.
	Immutable func(tag string) bool
	// ServeDeleted says that a kept tag goes on being served when the upstream
	// says that it is gone.
	ServeDeleted bool
	// Quota is the share of the upstream's rate limit that is left, from 0 to
	// 1; nil means that there is no limit.
	Quota func() float64
	// CosignTags makes what hangs on images by cosign's legacy tags part of
	// their referrers; BuildKitAttestations those of BuildKit's attestations
	// that have no subject.
	CosignTags, BuildKitAttestations bool
}

// Events are told what a Puller does, for metrics. Nil fields are not called.
type Events struct {
	// Flights is called with +1 when a download starts and -1 when it ends.
	Flights func(delta int)
	// Received is called with the bytes of bodies that came from an upstream.
	Received func(upstream string, bytes int64)
	// Kept is called with the bytes that are kept, when they change.
	Kept func(bytes int64)
	// Evicted is called with the bytes that made room.
	Evicted func(bytes int64)
	// Bypassed is called when content was served but could not be kept.
	Bypassed func(upstream string)
}

// Options say what a Puller works with. The zero durations mean: tags are
// checked at every pull, and nothing is remembered as absent.
type Options struct {
	Blobs     cache.Blobs
	Records   cache.Records
	Memory    Memory
	Upstreams []Upstream

	TagTTL       time.Duration // how long a tag is fresh
	ReferrersTTL time.Duration // how long a referrers answer is fresh
	NegativeTTL  time.Duration // how long "not found" is remembered
	MaxWait      time.Duration // how long a check may hold up an answer that is kept
	// Patience is how long a client waits for what refers to a manifest where
	// nothing is kept. Zero means 5 s.
	Patience time.Duration

	// Room bounds what is kept. Pins are images that the configuration names
	// one by one: they are brought here before anybody asks.
	Room Room
	Pins []Reference
	// ScrubRate is how many bytes a second the background scrub reads; zero
	// means that there is none.
	ScrubRate int64

	// MaxFlights is how many downloads may be under way or wait for their
	// turn; each is an open file. Zero means 1024.
	MaxFlights int

	// Offline means that no upstream is ever asked.
	Offline bool
	Logger  *slog.Logger
	Events  Events
}

// Puller answers requests for content from what is kept, and asks upstreams
// for the rest. All methods are safe for concurrent use.
type Puller struct {
	opts      Options
	log       *slog.Logger
	upstreams map[string]Upstream
	meta      *metadata.Ledger
	absent    *absences
	lists     *lists
	noAPI     *memory.Answers[Repository, struct{}]

	checks  singleflight.Group // tags, by repository and tag
	fetches singleflight.Group // manifests, by repository and digest
	asks    singleflight.Group // HEADs of blobs, pages of tags
	lookups lookups            // referrers

	stores singleflight.Group // manifests on their way to the disk, by digest
	unkept unkept

	completions singleflight.Group // pinned images, by repository and reference
	learners    map[string]*learner

	flights hangar
	sent    sent
	evictor *evictor
	moved   chan struct{} // a pinned tag points elsewhere now

	// ctx is the life of everything that goes on behind a request's back: a
	// download or a check belongs to the mirror, not to the client that
	// happened to ask first.
	ctx  context.Context
	stop context.CancelFunc
	work sync.WaitGroup
}

// New returns a Puller. Close ends what it has under way.
func New(opts Options) *Puller {
	opts.MaxFlights = cmp.Or(opts.MaxFlights, 1024)
	opts.Patience = cmp.Or(opts.Patience, usualPatience)
	p := &Puller{
		opts:      opts,
		log:       opts.Logger,
		upstreams: make(map[string]Upstream, len(opts.Upstreams)),
		meta:      metadata.New(opts.Records, opts.Room.Pinned),
		absent:    newAbsences(opts.NegativeTTL),
		noAPI:     newNoAPI(),
		lists:     newLists(),
		lookups:   lookups{all: make(map[string]*lookup)},
		learners:  make(map[string]*learner, len(opts.Upstreams)),
		flights:   hangar{byDigest: make(map[Digest]*flight)},
		sent:      sent{by: make(map[Digest]int)},
	}
	for _, u := range opts.Upstreams {
		p.upstreams[u.Name] = u
		p.learners[u.Name] = newLearner(u.Name)
	}
	p.evictor = newEvictor(opts.Room, opts.Blobs.Weight, opts.Events.Kept)
	p.moved = make(chan struct{}, 1)
	p.ctx, p.stop = context.WithCancel(context.Background())
	p.work.Go(func() { p.meta.Run(p.ctx) })
	p.work.Go(func() { p.runEvictor(p.ctx) })
	p.work.Go(func() { p.tendPinned(p.ctx) })
	if opts.ScrubRate > 0 {
		p.work.Go(func() { p.scrubNowAndThen(p.ctx) })
	}
	return p
}

// Close ends all downloads and checks and waits for them.
func (p *Puller) Close() {
	p.stop()
	p.work.Wait()
}

// Reindex notes anew which blobs belong to which repositories, from the
// manifests on record. It is for records that were rebuilt after damage.
func (p *Puller) Reindex() (manifests int, err error) { return p.meta.Reindex() }

// admit returns the upstream of a repository that the configuration lets
// through.
func (p *Puller) admit(repo Repository) (Upstream, error) {
	u, ok := p.upstreams[repo.Upstream]
	if !ok {
		return Upstream{}, fmt.Errorf("%s: %w", repo, upstream.ErrNameUnknown)
	}
	if u.Allows != nil && !u.Allows(repo.Name) {
		return Upstream{}, fmt.Errorf("%s: %w", repo, ErrForbidden)
	}
	return u, nil
}

// once is share for a question to an upstream, which has to be answered within
// maxAsk.
func once[T any](ctx context.Context, p *Puller, g *singleflight.Group, key string, fn func(ctx context.Context) (T, error)) (T, error) {
	return share(ctx, p, g, key, func(ctx context.Context) (T, error) {
		ctx, cancel := context.WithTimeoutCause(ctx, maxAsk, upstream.ErrTimeout)
		defer cancel()
		v, err := fn(ctx)
		return v, causeOf(ctx, err)
	})
}

// share runs fn in the background, once at a time for one key of group, and
// waits for it as long as ctx lasts. fn goes on when the caller leaves.
func share[T any](ctx context.Context, p *Puller, g *singleflight.Group, key string, fn func(ctx context.Context) (T, error)) (T, error) {
	var zero T
	done := g.DoChan(key, func() (any, error) {
		p.work.Add(1)
		defer p.work.Done()
		v, err := fn(p.ctx)
		return v, causeOf(p.ctx, err)
	})
	select {
	case r := <-done:
		if r.Err != nil {
			return zero, r.Err
		}
		return r.Val.(T), nil
	case <-ctx.Done():
		return zero, context.Cause(ctx)
	}
}

// causeOf gives an error that only says that ctx ended its meaning back.
func causeOf(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil || !errors.Is(err, ctx.Err()) {
		return err
	}
	if errors.Is(context.Cause(ctx), upstream.ErrTimeout) {
		return upstream.ErrTimeout
	}
	return fmt.Errorf("%w: this mirror is stopping", upstream.ErrUnavailable)
}

// tell calls an event's function where there is one.
func tell[A any](fn func(A), a A) {
	if fn != nil {
		fn(a)
	}
}
