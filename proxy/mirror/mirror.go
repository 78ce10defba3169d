// Package mirror assembles the mirror without its HTTP servers: metadata
// ([metadata.Ledger]), content ([store.Store]), downloads ([flight.Group]), the
// rules of pulling ([pull.Puller]), eviction ([retention.Retention]),
// prefetching ([warm.Pinner], [warm.Prefetcher]), and bundles
// ([transfer.Transfer]). It is the only package that
// knows all of these, and has no rules of its own.
//
// What it promises, each with the test that guards it:
//
//   - Nothing runs before Start and StartPrefetching
//     (TestNothingRunsBeforeItIsStarted).
//   - Close ends everything, and waits for it (TestCloseLeavesNothingRunning).
//   - What package pull reports reaches its handler
//     (TestATagThatMovesReachesThePinner, TestAStoredManifestReachesThePrefetcher).
package mirror

import (
	"cmp"
	"context"
	"log/slog"
	"slices"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/background"
	"github.com/entrepot/entrepot/proxy/flight"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/proxy/retention"
	"github.com/entrepot/entrepot/proxy/store"
	"github.com/entrepot/entrepot/proxy/transfer"
	"github.com/entrepot/entrepot/proxy/warm"
)

// Options are the dependencies and settings of a Mirror.
type Options struct {
	Blobs     cache.Blobs
	Records   cache.Records
	Memory    store.Memory
	Upstreams []pull.Upstream

	Rules  pull.Rules
	Bounds store.Bounds
	Pins   Pins
	// ScrubRate is how many bytes a second the background scrub reads; zero
	// disables it.
	ScrubRate int64
	// MaxFlights is how many downloads may be under way or waiting for a
	// connection; each is an open file. Zero means 1024.
	MaxFlights int
	// SmallBlob is the size in bytes below which a blob is fetched whole
	// whatever ranges of it are read. Zero means 4 MiB.
	SmallBlob int64

	Logger *slog.Logger
	Events Events
}

// Pins are the images that the configuration pins.
type Pins struct {
	// Matches says whether an image is pinned, by tag or digest; nil means that
	// none is.
	Matches func(repo metadata.Repository, ref string) bool
	// Images are the images that are pinned by name. They are fetched without
	// being requested.
	Images []metadata.Reference
}

// Events are callbacks for metrics. Nil fields are not called.
type Events struct {
	Flights  func(delta int)                    // a download starts (+1) or is over (-1)
	Received func(upstream string, bytes int64) // body bytes received from an upstream
	Usage    func(bytes int64)                  // bytes in use, when that changes
	Evicted  func(bytes int64)                  // bytes freed by eviction
	Bypassed func(upstream string)              // something was served but could not be cached
}

// Mirror is a mirror without its HTTP servers.
type Mirror struct {
	Ledger     *metadata.Ledger
	Store      *store.Store
	Flights    *flight.Group
	Puller     *pull.Puller
	Retention  *retention.Retention
	Pinner     *warm.Pinner
	Prefetcher *warm.Prefetcher
	Transfer   *transfer.Transfer

	scrubRate int64
	markOld   func(ctx context.Context) // what older versions have stored
	work      *background.Work
}

// New assembles a Mirror. It does no background work before Start and
// StartPrefetching are called, except for what clients request. If there is a
// bound, no blob is published before Start either, which counts what is stored,
// unless the records tell.
// The caller calls Close.
func New(opts Options) *Mirror {
	m := &Mirror{
		Ledger:    metadata.New(opts.Records, opts.Pins.Matches),
		Store:     store.New(store.Options{Blobs: opts.Blobs, Records: opts.Records, Memory: opts.Memory, Bounds: opts.Bounds, Usage: opts.Events.Usage, Logger: opts.Logger}),
		scrubRate: opts.ScrubRate,
		work:      background.New(),
	}
	m.markOld = func(ctx context.Context) {
		if err := m.Ledger.MarkOld(ctx, credentialed(opts.Upstreams)); err != nil && ctx.Err() == nil {
			opts.Logger.Warn("content of older versions may not be known to be private", "error", err)
		}
	}
	m.Flights = flight.NewGroup(m.work.Context(), m.Store, flight.Options{Max: cmp.Or(opts.MaxFlights, 1024), Running: opts.Events.Flights, Small: opts.SmallBlob})
	// A new manifest may lead to more to prefetch, and a pinned tag that moves
	// must be completed again. Package pull reports both events without knowing
	// who handles them.
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
	fetcher := warm.NewFetcher(warm.FetcherOptions{Puller: m.Puller, Retention: m.Retention, Ledger: m.Ledger, Store: m.Store})
	m.Pinner = warm.NewPinner(warm.PinnerOptions{
		Fetcher: fetcher, Puller: m.Puller, Retention: m.Retention, Ledger: m.Ledger, Store: m.Store, Work: m.work,
		Configured: opts.Pins.Images, Logger: opts.Logger,
	})
	m.Prefetcher = warm.NewPrefetcher(warm.PrefetcherOptions{
		Puller: m.Puller, Retention: m.Retention, Ledger: m.Ledger,
		Upstreams: names(opts.Upstreams), Logger: opts.Logger,
	})
	m.Transfer = transfer.New(transfer.Options{Puller: m.Puller, Retention: m.Retention, Ledger: m.Ledger, Store: m.Store, Offline: opts.Rules.Offline, Logger: opts.Logger})
	return m
}

func names(of []pull.Upstream) (all []string) {
	for _, u := range of {
		all = append(all, u.Name)
	}
	return all
}

func credentialed(of []pull.Upstream) []string {
	return names(slices.DeleteFunc(slices.Clone(of), func(u pull.Upstream) bool { return !u.Credentialed }))
}

// Cache has the operations on the cache that operators use.
type Cache struct {
	*retention.Retention
	*warm.Pinner
	*transfer.Transfer
}

// Cache returns the operations on the cache.
func (m *Mirror) Cache() Cache { return Cache{m.Retention, m.Pinner, m.Transfer} }

// Start starts the background work, except for prefetching: saving uses,
// evicting, completing pins, and scrubbing. Close ends it.
func (m *Mirror) Start() {
	m.work.Keep("saving uses", m.Ledger.Run)
	m.work.Go(m.markOld)
	m.work.Keep("evicting", m.Retention.Run)
	m.work.Keep("completing pins", m.Pinner.Run)
	if m.scrubRate > 0 {
		m.work.Keep("scrubbing", func(ctx context.Context) { m.Retention.RunScrub(ctx, m.scrubRate) })
	}
}

// StartPrefetching starts to prefetch what another pull may request. Close ends
// it.
func (m *Mirror) StartPrefetching() { m.work.Keep("prefetching", m.Prefetcher.Run) }

// Close ends all background work, including downloads and checks, and waits for
// it.
func (m *Mirror) Close() {
	m.work.Stop()
	m.Flights.Wait()
	m.Store.SaveUsage(true)
}
