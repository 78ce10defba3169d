// Package mirror puts the mirror together, without its HTTP: what is known
// ([metadata.Ledger]), what is kept ([store.Store]), downloads
// ([flight.Group]), the rules of pulling through ([pull.Puller]), what stays
// ([retention.Retention]), and what is fetched before anybody asks ([warm.Pinned],
// [warm.Learner]). It is the one place that knows all of them, and has no rules
// of its own.
package mirror

import (
	"cmp"
	"context"
	"log/slog"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/background"
	"github.com/entrepot/entrepot/proxy/flight"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/proxy/retention"
	"github.com/entrepot/entrepot/proxy/store"
	"github.com/entrepot/entrepot/proxy/warm"
)

// Options say what a Mirror is made of.
type Options struct {
	Blobs     cache.Blobs
	Records   cache.Records
	Memory    store.Memory
	Upstreams []pull.Upstream

	Rules  pull.Rules
	Bounds store.Bounds
	Pins   Pins
	// ScrubRate is how many bytes a second the background scrub reads; zero
	// means that there is none.
	ScrubRate int64
	// MaxFlights is how many downloads may be under way or wait for their
	// turn; each is an open file. Zero means 1024.
	MaxFlights int

	Logger *slog.Logger
	Events Events
}

// Pins are what the configuration pins.
type Pins struct {
	// Matches says whether an image is pinned, by its repository and a tag or a
	// digest; nil means that none is.
	Matches func(repo metadata.Repository, ref string) bool
	// Images are those that are named one by one: they are fetched before
	// anybody asks.
	Images []metadata.Reference
}

// Events are called when something happens, for metrics. Nil fields are not
// called.
type Events struct {
	Flights  func(delta int)                    // a download starts (+1), or is over (-1)
	Received func(upstream string, bytes int64) // of bodies, from an upstream
	Usage    func(bytes int64)                  // that are kept now, when that changes
	Evicted  func(bytes int64)                  // that made room
	Bypassed func(upstream string)              // something was served, and could not be kept
}

// Mirror is a mirror without its HTTP.
type Mirror struct {
	Ledger     *metadata.Ledger
	Store      *store.Store
	Flights    *flight.Group
	Puller     *pull.Puller
	Retention  *retention.Retention
	Pinner     *warm.Pinner
	Prefetcher *warm.Prefetcher

	scrubRate int64
	work      *background.Work
}

// New puts a Mirror together. Nothing of it runs before Run or Start is called,
// but for what clients ask of it.
func New(opts Options) *Mirror {
	m := &Mirror{
		Ledger:    metadata.New(opts.Records, opts.Pins.Matches),
		Store:     store.New(store.Options{Blobs: opts.Blobs, Memory: opts.Memory, Bounds: opts.Bounds, Usage: opts.Events.Usage, Logger: opts.Logger}),
		scrubRate: opts.ScrubRate,
		work:      background.New(),
	}
	m.Flights = flight.NewGroup(m.work.Context(), m.Store, flight.Options{Max: cmp.Or(opts.MaxFlights, 1024), Running: opts.Events.Flights})
	// What is kept may lead to more, and a pinned tag that moves has to become
	// whole again: pull reports both, and knows nothing of who listens.
	events := pull.Events{
		Received: opts.Events.Received, Bypassed: opts.Events.Bypassed,
		ManifestStored: func(repo metadata.Repository, d metadata.Digest, rec metadata.Manifest) {
			m.Prefetcher.ManifestStored(repo, d, rec)
		},
		TagMoved: func(repo metadata.Repository, tag string) { m.Pinner.TagMoved(repo, tag) },
	}
	m.Puller = pull.New(pull.Options{
		Ledger: m.Ledger, Store: m.Store, Flights: m.Flights, Work: m.work,
		Upstreams: opts.Upstreams, Rules: opts.Rules, Events: events, Logger: opts.Logger,
	})
	m.Retention = retention.New(retention.Options{
		Store: m.Store, Ledger: m.Ledger, Fresh: m.Puller.IsFresh, Evicted: opts.Events.Evicted, Logger: opts.Logger,
	})
	m.Pinner = warm.NewPinner(warm.PinnerOptions{
		Puller: m.Puller, Retention: m.Retention, Ledger: m.Ledger, Store: m.Store, Work: m.work,
		Configured: opts.Pins.Images, Offline: opts.Rules.Offline, Logger: opts.Logger,
	})
	m.Prefetcher = warm.NewPrefetcher(warm.PrefetcherOptions{
		Puller: m.Puller, Retention: m.Retention, Ledger: m.Ledger,
		Upstreams: names(opts.Upstreams), Offline: opts.Rules.Offline, Logger: opts.Logger,
	})
	return m
}

func names(of []pull.Upstream) (all []string) {
	for _, u := range of {
		all = append(all, u.Name)
	}
	return all
}

// Cache is what operators can do to what is kept.
type Cache struct {
	*retention.Retention
	*warm.Pinner
}

// Cache returns what operators can do to what is kept.
func (m *Mirror) Cache() Cache { return Cache{m.Retention, m.Pinner} }

// Start begins what a mirror does by itself, but for learning: saving what was
// used, evicting, completing pins, scrubbing. Close ends it.
func (m *Mirror) Start() {
	m.work.Go(m.Ledger.Run)
	m.work.Go(m.Retention.Run)
	m.work.Go(m.Pinner.Run)
	if m.scrubRate > 0 {
		m.work.Go(func(ctx context.Context) { m.Retention.RunScrub(ctx, m.scrubRate) })
	}
}

// StartLearning begins to learn what pulling again may ask for. Close ends it.
func (m *Mirror) StartPrefetching() { m.work.Go(m.Prefetcher.Run) }

// Close ends all that goes on, downloads and checks too, and waits for it.
func (m *Mirror) Close() {
	m.work.Stop()
	m.Flights.Wait()
}
