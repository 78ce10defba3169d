package pull

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/entrepot/entrepot/proxy/background"
	"github.com/entrepot/entrepot/proxy/flight"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/store"
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
	// CosignTags makes what cosign's legacy tags carry part of an image's
	// referrers; BuildKitAttestations does so for BuildKit's attestations that
	// have no subject.
	CosignTags, BuildKitAttestations bool
}

// Rules say how long answers are believed and waited for. The zero durations
// mean: tags are checked at every pull, and nothing is remembered as absent.
type Rules struct {
	TagTTL       time.Duration // how long a tag is fresh
	ReferrersTTL time.Duration // how long a referrers answer is fresh
	NegativeTTL  time.Duration // how long "not found" is remembered
	MaxWait      time.Duration // how long a check may hold up an answer that is kept
	// Patience is how long a client waits for what refers to a manifest where
	// nothing is kept. Zero means 5 s.
	Patience time.Duration
	// Offline means that no upstream is ever asked.
	Offline bool
}

// Events are called when something happens. Nil fields are not called.
type Events struct {
	// Received is called with the bytes of bodies that came from an upstream.
	Received func(upstream string, bytes int64)
	// Bypassed is called when content was served but could not be kept.
	Bypassed func(upstream string)
	// ManifestKept is called when a manifest was kept for a repository.
	ManifestKept func(repo Repository, d Digest, m metadata.Manifest)
	// TagMoved is called when a tag points at another manifest than before, or
	// is new.
	TagMoved func(repo Repository, tag string)
}

// Options say what a Puller works with.
type Options struct {
	Ledger  *metadata.Ledger
	Store   *store.Store
	Flights *flight.Group
	// Work is what goes on in the background: a download or a check belongs to
	// the mirror, not to the client that happened to ask first.
	Work      *background.Work
	Upstreams []Upstream
	Rules     Rules
	Events    Events
	Logger    *slog.Logger
}

// Puller answers requests for content from what is kept, and asks upstreams
// for the rest. All methods are safe for concurrent use.
type Puller struct {
	ledger    *metadata.Ledger
	store     *store.Store
	flights   *flight.Group
	work      *background.Work
	upstreams map[string]Upstream
	rules     Rules
	events    Events
	log       *slog.Logger

	questions questions
	lookups   *lookups // of referrers
	absent    *absences
	sent      sent
}

// questions are those to upstreams that are under way, each once.
type questions struct {
	checks  singleflight.Group // of tags, by repository and tag
	fetches singleflight.Group // of manifests, by repository and digest
	asks    singleflight.Group // HEADs of blobs, pages of tags
	lists   *lists             // of tags, in parts
}

// New returns a Puller. It starts nothing by itself.
func New(opts Options) *Puller {
	opts.Rules.Patience = cmp.Or(opts.Rules.Patience, usualPatience)
	p := &Puller{
		ledger: opts.Ledger, store: opts.Store, flights: opts.Flights, work: opts.Work,
		upstreams: make(map[string]Upstream, len(opts.Upstreams)),
		rules:     opts.Rules, events: opts.Events, log: opts.Logger,
		questions: questions{lists: newLists()},
		lookups:   newLookups(),
		absent:    newAbsences(opts.Rules.NegativeTTL),
		sent:      sent{by: make(map[Digest]int)},
	}
	for _, u := range opts.Upstreams {
		p.upstreams[u.Name] = u
	}
	return p
}

// Check says whether the configuration lets a repository be pulled: it returns
// upstream.ErrNameUnknown or ErrForbidden where it does not.
func (p *Puller) Check(repo Repository) error {
	_, err := p.admit(repo)
	return err
}

// Quota is the share of the rate limit of a repository's upstream that is left,
// from 0 to 1.
func (p *Puller) Quota(repo Repository) float64 {
	if u := p.upstreams[repo.Upstream]; u.Quota != nil {
		return u.Quota()
	}
	return 1
}

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

// once runs a question to an upstream in the background, one at a time for each
// key of group, and waits for it as long as ctx lasts. The question has to be
// answered within maxAsk, and goes on when the caller leaves.
func once[T any](ctx context.Context, p *Puller, g *singleflight.Group, key string, ask func(ctx context.Context) (T, error)) (T, error) {
	return background.Share(ctx, p.work, g, key, func(ctx context.Context) (T, error) {
		ctx, cancel := context.WithTimeoutCause(ctx, maxAsk, upstream.ErrTimeout)
		defer cancel()
		v, err := ask(ctx)
		return v, causeOf(ctx, err)
	})
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

// notify calls an event's function where there is one.
func notify[A any](fn func(A), a A) {
	if fn != nil {
		fn(a)
	}
}

func notify2[A, B any](fn func(A, B), a A, b B) {
	if fn != nil {
		fn(a, b)
	}
}
