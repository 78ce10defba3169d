// Package mirror puts the mirror together, without its HTTP: records
// ([metadata.Ledger]), content ([store.Store]), downloads ([flight.Group]), the
// rules of pulling through ([pull.Puller]), what stays ([retention.Retention]),
// and what is fetched before anybody asks ([warm.Pinned], [warm.Learner]). It is
// the one place that knows all of them. It has no rules of its own.
//
// What it promises, each with the test that guards it:
//
//   - Nothing runs before Start and StartLearning
//     (TestNothingRunsBeforeItIsStarted).
//   - Close ends everything, and waits for it (TestCloseLeavesNothingRunning).
//   - What package pull reports reaches the one who listens
//     (TestATagThatMovesReachesThePins, TestAKeptManifestReachesTheLearner).
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
	// Images are those that are named one by one. They are fetched before
	// anybody asks.
	Images []metadata.Reference
}

// Events are called when something happens, for metrics. Nil fields are not
// called.
type Events struct {
	Flights  func(delta int)                    // a download has started (+1) or is over (-1)
	Received func(upstream string, bytes int64) // bytes of bodies have come from an upstream
	Kept     func(bytes int64)                  // so many bytes are kept now
	Evicted  func(bytes int64)                  // so many bytes were evicted
	Bypassed func(upstream string)              // content was served and could not be kept
}

// Mirror is a mirror without its HTTP. All methods are safe for concurrent use.
type Mirror struct {
	Ledger    *metadata.Ledger
	Store     *store.Store
	Flights   *flight.Group
	Puller    *pull.Puller
	Retention *retention.Retention
	Pinned    *warm.Pinned
	Learner   *warm.Learner

	scrubRate int64
	work      *background.Work
}

// New puts a Mirror together. Before Start and StartLearning nothing of it runs
// but what somebody asks for; where there is a bound, no blob is published
// before Start either, which counts what is kept. Its caller calls Close.
func New(opts Options) *Mirror {
	m := &Mirror{
		Ledger:    metadata.New(opts.Records, opts.Pins.Matches),
		Store:     store.New(store.Options{Blobs: opts.Blobs, Memory: opts.Memory, Bounds: opts.Bounds, Kept: opts.Events.Kept, Logger: opts.Logger}),
		scrubRate: opts.ScrubRate,
		work:      background.New(),
	}
	m.Flights = flight.NewGroup(m.work.Context(), m.Store, flight.Options{Max: cmp.Or(opts.MaxFlights, 1024), Running: opts.Events.Flights})
	// A manifest that is kept may lead to more, and a pinned tag that has moved is
	// to be made whole again. Package pull reports both, and does not know who
	// listens.
	events := pull.Events{
		Received: opts.Events.Received, Bypassed: opts.Events.Bypassed,
		ManifestKept: func(repo metadata.Repository, d metadata.Digest, rec metadata.Manifest) {
			m.Learner.ManifestKept(repo, d, rec)
		},
		TagMoved: func(repo metadata.Repository, tag string) { m.Pinned.TagMoved(repo, tag) },
	}
	m.Puller = pull.New(pull.Options{
		Ledger: m.Ledger, Store: m.Store, Flights: m.Flights, Work: m.work,
		Upstreams: opts.Upstreams, Rules: opts.Rules, Events: events, Logger: opts.Logger,
	})
	m.Retention = retention.New(retention.Options{
		Store: m.Store, Ledger: m.Ledger, Fresh: m.Puller.Fresh, Evicted: opts.Events.Evicted, Logger: opts.Logger,
	})
	m.Pinned = warm.NewPinned(warm.PinnedOptions{
		Puller: m.Puller, Retention: m.Retention, Ledger: m.Ledger, Store: m.Store, Work: m.work,
		Configured: opts.Pins.Images, Offline: opts.Rules.Offline, Logger: opts.Logger,
	})
	m.Learner = warm.NewLearner(warm.LearnerOptions{
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

// Cache is what operators can do to a mirror's cache.
type Cache struct {
	*retention.Retention
	*warm.Pinned
}

// Cache returns what operators can do to the mirror's cache.
func (m *Mirror) Cache() Cache { return Cache{m.Retention, m.Pinned} }

// Start begins what a mirror does by itself, except learning: it saves uses,
// evicts, completes pinned images, and scrubs. Close ends that.
func (m *Mirror) Start() {
	m.work.Go(m.Ledger.Run)
	m.work.Go(m.Retention.Run)
	m.work.Go(m.Pinned.Run)
	if m.scrubRate > 0 {
		m.work.Go(func(ctx context.Context) { m.Retention.RunScrub(ctx, m.scrubRate) })
	}
}

// StartLearning begins to learn what another pull may ask for. It is apart from
// Start so that it can wait until clients are served. Close ends it.
func (m *Mirror) StartLearning() { m.work.Go(m.Learner.Run) }

// Close ends everything that runs, downloads and checks too, and waits until it
// has ended.
func (m *Mirror) Close() {
	m.work.Stop()
	m.Flights.Wait()
}
