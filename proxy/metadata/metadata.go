// Package metadata holds everything the mirror knows except for content: what
// tags point at, which manifests are cached for a repository and what they
// reference, which blobs belong to a repository, the referrers of manifests,
// pins, and when content was last used. All of it is stored in [cache.Records].
// The package knows nothing of upstreams or of content, and makes no requests.
//
// Its invariants, with the tests that guard them:
//
//   - A record and its decoded copy in memory are the same once a change has
//     returned (TestADecodedCopyIsNeverOlderThanTheRecord).
//   - A manifest that [Ledger.Find] returns stays on record: a [Watch] that
//     began earlier does not forget it
//     (TestAManifestThatWasFoundIsNotForgottenByAnEarlierWatch).
//   - Content that a [Ledger.Lease] covers is not removed: [Watch.Remove]
//     refuses, and a lease waits for a removal that has begun
//     (TestALeaseWaitsForARemovalThatHasBegun).
//
// There is one lock, Ledger.mu. It is held for changes, to record a use, and
// while a watch forgets an image. It is not held while a long record is encoded
// or decoded (TestNoListIsEncodedOrDecodedUnderTheLock), or content is deleted.
// Nothing called under it takes a lock of another package, except for the
// records themselves.
package metadata

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/referrers"
)

// Ledger is the mirror's metadata. All methods are safe for concurrent use.
type Ledger struct {
	records *followed
	// pinnedByConfig says whether the configuration pins an image. It may be
	// nil.
	pinnedByConfig func(repo Repository, tag string) bool

	// mu is held while a record and its decoded copy change, so that they
	// change together. Copies in memory are read without it.
	mu sync.Mutex
	// changes counts changes. A record that was decoded while something changed
	// is not added to memory.
	changes    atomic.Uint64
	tags       *lru.Cache[string, Tag]
	mediaTypes *lru.Cache[string, string] // of manifests
	whose
	answers  *lru.Cache[string, Listed]
	unkept   *lru.Cache[string, Referrers] // empty answers about manifests that are not cached
	untagged *lru.Cache[string, struct{}]  // repositories without tags and without cached manifests
	uses     uses
	leases   leases
}

// New returns a Ledger over records. pinned says whether the configuration pins
// an image, by tag or digest; nil means that it pins none.
func New(records cache.Records, pinned func(repo Repository, ref string) bool) *Ledger {
	return &Ledger{
		records:        &followed{Records: records, changed: make(map[string]bool)},
		pinnedByConfig: pinned,
		tags:           newLRU[Tag](16 << 10),
		mediaTypes:     newLRU[string](32 << 10),
		whose:          whose{members: newLRU[Member](64 << 10), private: newLRU[bool](64 << 10)},
		answers:        newLRU[Listed](1 << 10),
		unkept:         newLRU[Referrers](maxUnkept),
		untagged:       newLRU[struct{}](maxUnkept),
		uses:           uses{unsaved: make(map[string]int64)},
		leases:         leases{held: make(map[Digest]int), wide: make(map[*referrers.NameSet]bool), removing: make(map[Digest]chan struct{})},
	}
}

// beginChange locks the ledger for a change of records and their decoded
// copies, and returns the function that ends the change.
func (l *Ledger) beginChange() (end func()) {
	l.mu.Lock()
	return l.endChange
}

func (l *Ledger) endChange() {
	l.changes.Add(1)
	l.mu.Unlock()
}

func newLRU[V any](size int) *lru.Cache[string, V] {
	c, err := lru.New[string, V](size)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return c
}

// load returns the decoded copy of a record, or decodes the record. It does not
// hold the lock while it decodes. If something changes meanwhile, it does not
// add the copy to memory.
func load[V any](l *Ledger, decoded *lru.Cache[string, V], key string, decode func(key string) (V, bool)) (V, bool) {
	if v, ok := decoded.Get(key); ok {
		return v, true
	}
	before := l.changes.Load()
	v, ok := decode(key)
	if !ok {
		return v, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changes.Load() == before {
		decoded.Add(key, v)
	}
	return v, true
}

// read decodes a record. A record that cannot be decoded counts as missing.
func (l *Ledger) read(b cache.Bucket, key string, into any) bool {
	raw, err := l.records.Get(b, key)
	return err == nil && json.Unmarshal(raw, into) == nil
}

// has says whether there is a record.
func (l *Ledger) has(b cache.Bucket, key string) bool {
	_, err := l.records.Get(b, key)
	return err == nil
}

func (l *Ledger) write(b cache.Bucket, key string, v any) { l.records.Put(b, key, encode(b, v)) }

func encode(b cache.Bucket, v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("record of %s: %v", b, err)) // only for types that JSON cannot encode
	}
	return raw
}

func (l *Ledger) keys(b cache.Bucket, prefix string) (all []string) {
	// Records that cannot be scanned are lost anyway.
	_ = l.records.Scan(b, prefix, func(key string, _ []byte) bool {
		all = append(all, key)
		return true
	})
	return all
}

// Pace waits while more records are waiting to be written than should be. It is
// called before many are changed, and without any lock.
func (l *Ledger) Pace(ctx context.Context) { l.records.Pace(ctx) }

// Flush returns when everything that was written before the call is durable.
// Uses may still be in memory only.
func (l *Ledger) Flush(ctx context.Context) error { return l.records.Flush(ctx) }
