package pull

import (
	"cmp"
	"fmt"
	"log/slog"
	"time"

	"github.com/entrepot/entrepot/proxy/background"
	"github.com/entrepot/entrepot/proxy/flight"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/store"
	"github.com/entrepot/entrepot/upstream"
)

// maxManifest is the size in bytes of the largest manifest that is served.
// Clients give up at about 4 MiB (wire fact W8). It protects the process and is
// not configurable.
const maxManifest = 8 << 20

// Upstream is one configured registry with its settings.
type Upstream struct {
	Name string
	// Endpoints are the upstream's endpoints, in order. Each of them is asked for
	// referrers.
	Endpoints []upstream.Endpoint
	// Registry is all of them in one, which shares their limits. Nil means that
	// there is only one.
	Registry upstream.Registry
	// Allows says whether a repository may be pulled; nil allows all of them.
	Allows func(repository string) bool
	// Immutable says whether a tag is never checked again; nil means that no
	// tag is.
	Immutable func(tag string) bool
	// ServeDeleted means that a cached tag is still served after the upstream
	// has deleted it.
	ServeDeleted bool
	// Credentialed means that it is asked with credentials: what is fetched from
	// it may be private to the repository that it is fetched from.
	Credentialed bool
	// Quota is the remaining share of the upstream's rate limit, from 0 to 1;
	// nil means that there is no limit.
	Quota func() float64
	// Offline means that it is never asked.
	Offline bool
	// Connections is how many requests may fetch one blob side by side; 0 means
	// one.
	Connections int
	// CosignTags includes the content of cosign's legacy tags in an image's
	// referrers. BuildKitAttestations includes BuildKit's attestations that
	// have no subject.
	CosignTags, BuildKitAttestations bool
}

// Rules say how long answers are fresh and how long clients wait. With zero
// durations, tags are checked at every pull and "not found" is not remembered.
type Rules struct {
	TagTTL       time.Duration // how long a tag is fresh
	ReferrersTTL time.Duration // how long a referrers answer is fresh
	NegativeTTL  time.Duration // how long "not found" is remembered
	MaxWait      time.Duration // how long a check may delay a cached answer
	// Wait is how long a client waits for anything else that is not cached.
	// Zero means 18 s.
	Wait time.Duration
	// Patience is how long a client waits for referrers if no answer is cached.
	// Zero means 5 s.
	Patience time.Duration
	// Offline means that no upstream is ever asked, as if each had it set.
	Offline bool
	// Room bounds what is in hand of manifests that are being read; nil means no
	// bound.
	Room *upstream.Room
}

// Events are callbacks. Nil fields are not called.
type Events struct {
	// Received is called with the number of body bytes received from an
	// upstream.
	Received func(upstream string, bytes int64)
	// Bypassed is called when content was served but could not be cached.
	Bypassed func(upstream string)
	// ManifestStored is called when a manifest was cached for a repository.
	ManifestStored func(repo Repository, d Digest, m metadata.Manifest)
	// TagMoved is called when a tag is new or points at another manifest than
	// before.
	TagMoved func(repo Repository, tag string)
}

// Options are the dependencies and settings of a Puller.
type Options struct {
	Ledger  *metadata.Ledger
	Store   *store.Store
	Flights *flight.Group
	// Work runs what continues in the background: a download or a check belongs
	// to the mirror, not to the client that happened to ask first.
	Work      *background.Work
	Upstreams []Upstream
	Rules     Rules
	Events    Events
	Logger    *slog.Logger
}

// Puller answers requests for content from the cache, and from upstreams if it
// is not there. All methods are safe for concurrent use.
type Puller struct {
	ledger    *metadata.Ledger
	store     *store.Store
	flights   *flight.Group
	work      *background.Work
	upstreams map[string]Upstream
	rules     Rules
	events    Events
	log       *slog.Logger

	requests    requests
	lookups     *lookups // of referrers
	negative    *negativeCache
	diskReaders diskReaders
}

// requests are the requests to upstreams that are under way.
type requests struct {
	checks   *shared   // tags, by repository and tag
	fetches  *shared   // manifests, by repository and digest
	others   *shared   // HEADs of blobs, pages of tags
	tagPages *tagPages // collects tag lists from their pages

	conversions *conversions // what tags are for clients that accept other types
	renewals    renewals     // what clients have had asked anew
	noRanges    *noRanges    // repositories whose upstream has none
}

// New returns a Puller. It starts no goroutines.
func New(opts Options) *Puller {
	opts.Rules.Patience = cmp.Or(opts.Rules.Patience, defaultPatience)
	opts.Rules.Wait = cmp.Or(opts.Rules.Wait, defaultWait)
	p := &Puller{
		ledger: opts.Ledger, store: opts.Store, flights: opts.Flights, work: opts.Work,
		upstreams: make(map[string]Upstream, len(opts.Upstreams)),
		rules:     opts.Rules, events: opts.Events, log: opts.Logger,
		requests:    requests{checks: newShared(false), fetches: newShared(false), others: newShared(true), tagPages: newTagPages(), conversions: newConversions(), renewals: newRenewals(), noRanges: newNoRanges()},
		lookups:     newLookups(),
		negative:    newNegativeCache(opts.Rules.NegativeTTL),
		diskReaders: diskReaders{count: make(map[Digest]int)},
	}
	for _, u := range opts.Upstreams {
		switch {
		case u.Offline || opts.Rules.Offline:
			u = u.goOffline()
		case u.Registry == nil:
			u.Registry = u.Endpoints[0]
		}
		p.upstreams[u.Name] = u
	}
	return p
}

// Check says whether the configuration allows pulling from a repository. It
// returns upstream.ErrNameUnknown or ErrForbidden if not.
func (p *Puller) Check(repo Repository) error {
	_, err := p.upstreamFor(repo)
	return err
}

// IsOffline says whether an upstream is never asked.
func (p *Puller) IsOffline(upstream string) bool { return p.upstreams[upstream].Offline }

// Quota is the remaining share of the rate limit of a repository's upstream,
// from 0 to 1.
func (p *Puller) Quota(repo Repository) float64 {
	if u := p.upstreams[repo.Upstream]; u.Quota != nil {
		return u.Quota()
	}
	return 1
}

// upstreamFor returns the upstream of a repository that the configuration
// allows.
func (p *Puller) upstreamFor(repo Repository) (Upstream, error) {
	u, ok := p.upstreams[repo.Upstream]
	if !ok {
		return Upstream{}, fmt.Errorf("%s: %w", repo, notConfiguredError(repo.Upstream))
	}
	if u.Allows != nil && !u.Allows(repo.Name) {
		return Upstream{}, fmt.Errorf("%s: %w", repo, ErrForbidden)
	}
	return u, nil
}

// notConfiguredError names an upstream that nothing was asked of, so it does not
// say of a repository that it is not there.
type notConfiguredError string

func (e notConfiguredError) Error() string {
	return fmt.Sprintf("%.260q is not one of this mirror's upstreams", string(e))
}

func (notConfiguredError) Unwrap() error { return upstream.ErrNameUnknown }

// emit calls an event's callback if there is one.
func emit[A any](fn func(A), a A) {
	if fn != nil {
		fn(a)
	}
}

func emit2[A, B any](fn func(A, B), a A, b B) {
	if fn != nil {
		fn(a, b)
	}
}
