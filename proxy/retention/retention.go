// Package retention decides what stays: it reads everything that is kept as a
// graph of images ([Retention.Inventory]), removes the images that were used
// least recently when room is short ([Retention.Run]), removes what an operator
// names ([Retention.Purge]), and sets aside what is damaged
// ([Retention.Scrub]). It also answers what an image still lacks. It asks no
// upstream and starts no download.
//
// Its invariants, each with the test that guards it:
//
//   - Eviction is by image: what is left is whole
//     (TestWhatIsLeftAfterEvictionIsWhole).
//   - A pinned image, and what somebody has come for since the snapshot was
//     taken, stays (TestAnImageThatIsPulledWhileItWouldGoStays).
//   - Records go first, and are durable before their content goes: a crash
//     between leaves blobs that nobody names, never a manifest without its blobs
//     (TestModel, with its crashes).
//
// The hand-shake with those who store a manifest: they lease it
// ([metadata.Ledger.Lease]) before they look whether its content is there, and
// put it on record before they release the lease. A [metadata.Watch] sees both.
// Locks are taken in this order: Retention.sweeping, which is held by the one who
// removes; then the ledger's; then the store's. Neither of the last two is held
// while the other is taken: the watch is asked first, and then the store.
package retention

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/store"
)

// Digest names content by algorithm and hash, as in sha256:….
type Digest = metadata.Digest

// Descriptor names content by media type, digest and size in bytes.
type Descriptor = metadata.Descriptor

// Repository names a repository of a configured upstream.
type Repository = metadata.Repository

// Reference names an image by a tag or a digest.
type Reference = metadata.Reference

// lookAround is how often the bounds are looked at without a cause, because
// others fill the disk too.
const checkInterval = time.Minute

// Options say what a Retention works with.
type Options struct {
	Store  *store.Store
	Ledger *metadata.Ledger
	// Fresh says whether a tag needs no check; nil means that none is.
	Fresh func(repo Repository, tag string, rec metadata.Tag) bool
	// Evicted is called with the bytes that an eviction freed; it may be nil.
	Evicted func(bytes int64)
	Logger  *slog.Logger
}

// Retention decides what stays. All methods are safe for concurrent use.
type Retention struct {
	store   *store.Store
	ledger  *metadata.Ledger
	fresh   func(repo Repository, tag string, rec metadata.Tag) bool
	evicted func(bytes int64)
	log     *slog.Logger

	// sweeping is held by the one who takes a snapshot, and removes by it.
	sweeping sync.Mutex
}

// New returns a Retention. Nothing happens before Run is called.
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

// Run keeps the store within its bounds until ctx ends: when it says that room
// is short, and now and then.
func (r *Retention) Run(ctx context.Context) {
	tick := time.NewTicker(checkInterval)
	defer tick.Stop()
	r.count(ctx)
	for {
		r.store.EvictionPass(func(excess int64) int64 { return r.makeRoom(ctx, excess) })
		select {
		case <-r.store.EvictionDue():
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// count counts what the store holds. At the start nothing waits for it but the
// publishing of downloads.
func (r *Retention) count(ctx context.Context) {
	r.sweeping.Lock()
	defer r.sweeping.Unlock()
	if err := r.store.Count(ctx, nil); err != nil && ctx.Err() == nil {
		r.log.Error("the cache cannot be counted", "error", err)
	}
}

func (r *Retention) makeRoom(ctx context.Context, excess int64) (freed int64) {
	freed, err := r.evict(ctx, excess)
	if ctx.Err() != nil {
		return freed
	}
	if err != nil {
		r.log.Error("eviction failed", "error", err)
	}
	r.log.Info("evicted", "wanted_bytes", excess, "freed_bytes", freed)
	return freed
}
