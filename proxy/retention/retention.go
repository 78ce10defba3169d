// Package retention decides what stays in the cache. It reads the cache as a
// graph of images ([Retention.Inventory]), evicts the least recently used
// images and unfinished downloads when room is short ([Retention.Run]), removes
// what an operator names ([Retention.Purge]), and quarantines damaged content
// ([Retention.Scrub]). It also finds what a cached image lacks
// ([Retention.FindMissing]). It asks no upstream and starts no download.
//
// Its invariants, with the tests that guard them:
//
//   - Eviction is by image: the images that are left are complete
//     (TestWhatIsLeftAfterEvictionIsWhole).
//   - A pinned image stays, and so does an image that was used after the
//     snapshot was taken (TestAnImageThatIsPulledWhileItIsBeingEvictedStays).
//   - An unfinished download is evicted in one order with images, and stays if a
//     pinned image needs it or if it was used after the snapshot was taken
//     (TestDraftsAreEvictedInOneOrderWithImagesAndBlobs,
//     TestADraftThatIsUsedWhileDraftsAreEvictedStays).
//   - Records are removed first, and durably, before their content is deleted:
//     a crash in between leaves unreferenced blobs, but never a manifest
//     without its blobs (TestModel, with its crashes).
//
// This is how it cooperates with the storing of manifests: the writer takes a
// lease ([metadata.Ledger.Lease]) before it checks whether the content is
// there, and records the manifest before it releases the lease. A
// [metadata.Watch] sees both. Locks are taken in this order:
// Retention.sweeping, which the remover holds; then the ledger's; then the
// store's. Neither of the last two is held while the other is taken: the watch
// is asked first, then the store.
package retention

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/store"
)

// Digest is an algorithm and a hash, as in sha256:….
type Digest = metadata.Digest

// Descriptor is a content descriptor: media type, digest and size in bytes.
type Descriptor = metadata.Descriptor

// Repository is a repository of a configured upstream.
type Repository = metadata.Repository

// Reference is a tag or a digest in a repository.
type Reference = metadata.Reference

const (
	// checkInterval is how often the bounds are checked even if nothing was
	// stored, because other programs fill the disk too.
	checkInterval = time.Minute
	// recordsInterval is how often it is checked whether the records have grown.
	recordsInterval = 5 * time.Second
)

// Options are the dependencies and settings of a Retention.
type Options struct {
	Store  *store.Store
	Ledger *metadata.Ledger
	// Fresh says whether a tag needs no check; nil means that no tag is fresh.
	Fresh func(repo Repository, tag string, rec metadata.Tag) bool
	// Evicted is called with the number of bytes that an eviction freed; it may
	// be nil.
	Evicted func(bytes int64)
	Logger  *slog.Logger
}

// Retention decides what stays in the cache. All methods are safe for
// concurrent use.
type Retention struct {
	store   *store.Store
	ledger  *metadata.Ledger
	fresh   func(repo Repository, tag string, rec metadata.Tag) bool
	evicted func(bytes int64)
	log     *slog.Logger

	// sweeping is held while a snapshot is in use, and while content is removed
	// according to it.
	sweeping sync.Mutex
	swept    time.Time // when the records were swept last; guarded by sweeping
}

// New returns a Retention. It does nothing before Run is called.
func New(opts Options) *Retention {
	r := &Retention{store: opts.Store, ledger: opts.Ledger, fresh: opts.Fresh, evicted: opts.Evicted, log: opts.Logger}
	if r.fresh == nil {
		r.fresh = func(Repository, string, metadata.Tag) bool { return false }
	}
	if r.evicted == nil {
		r.evicted = func(int64) {}
	}
	return r
}

// Run keeps the store within its bounds until ctx is done: whenever the store
// says that room is short, and periodically.
func (r *Retention) Run(ctx context.Context) {
	tick := time.NewTicker(checkInterval)
	defer tick.Stop()
	records := time.NewTicker(recordsInterval)
	defer records.Stop()
	defer r.store.EndPasses()
	for {
		if r.store.NeedsCount() {
			r.recount(ctx)
		}
		r.store.EvictionPass(func(p *store.Pass) { r.makeRoom(ctx, p) })
		r.store.SaveUsage(false)
		if !r.untilDue(ctx, tick.C, records.C) {
			return
		}
	}
}

// untilDue returns when the bounds are to be checked, with false when ctx is done.
func (r *Retention) untilDue(ctx context.Context, tick, records <-chan time.Time) bool {
	for {
		select {
		case <-r.store.EvictionDue():
			return true
		case <-tick:
			return true
		case <-records:
			if r.store.RecordsPress() {
				return true
			}
		case <-ctx.Done():
			return false
		}
	}
}

// recount counts the content of the store. Only the publishing of downloads may
// wait for it, and only if nothing is known.
func (r *Retention) recount(ctx context.Context) {
	r.sweeping.Lock()
	defer r.sweeping.Unlock()
	if err := r.store.Count(ctx, nil); err != nil && ctx.Err() == nil {
		r.log.Error("the size of the cache cannot be determined", "error", err)
	}
}

func (r *Retention) makeRoom(ctx context.Context, pass *store.Pass) {
	wanted := pass.Wanted()
	freed, err := r.evict(ctx, pass.IsShortAfter)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		r.log.Error("eviction failed", "error", err)
	}
	r.log.Info("evicted", "wanted_bytes", wanted, "freed_bytes", freed)
}
