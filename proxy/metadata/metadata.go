// Package metadata holds what the mirror knows beside content itself: where
// tags point, which manifests are kept for a repository and what they name,
// which blobs a repository holds, what refers to a manifest, what is pinned,
// and when something was used last. All of it stands in [cache.Records]. The
// package knows no upstreams and no bytes, and asks nobody.
//
// Its invariants, each with the test that guards it:
//
//   - A record and its decoded copy in memory never differ once a change has
//     returned (TestADecodedCopyIsNeverOlderThanTheRecord).
//   - What [Ledger.Find] returns stays on record as long as its caller is in
//     time: a [Watch] that began before does not let it go
//     (TestWhatIsFoundIsNotForgottenByAWatchFromBefore).
//   - What a [Ledger.Lease] covers keeps its content: [Watch.Remove] refuses it,
//     and a lease waits for a removal that has begun
//     (TestALeaseWaitsForARemovalThatHasBegun).
//
// There is one lock, Ledger.mu. It is held for changes, for noting a use, and
// while a watch forgets an image. It is not held while a record is decoded, nor
// while content is deleted, and nothing that is called under it takes a lock of
// another package, but for the records themselves.
package metadata

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/entrepot/entrepot/cache"
)

// Ledger is what is known. All methods are safe for concurrent use.
type Ledger struct {
	records cache.Records
	// configured says whether the configuration pins an image. It may be nil.
	pinnedByConfig func(repo Repository, tag string) bool

	// mu is held while a record and its decoded copy change, so that the two
	// change together. A copy in memory is read without it.
	mu sync.Mutex
	// changes counts what changed: a record that was decoded while another
	// change went on is not remembered.
	changes   atomic.Uint64
	tags      *lru.Cache[string, Tag]
	manifests *lru.Cache[string, Manifest]
	members   *lru.Cache[string, Member]
	answers   *lru.Cache[string, Referrers]
	uses      uses
	leases    leases
}

// New returns a Ledger over records. Pinned says whether the configuration pins
// an image, by a tag or a digest; nil means that it pins none.
func New(records cache.Records, pinned func(repo Repository, ref string) bool) *Ledger {
	return &Ledger{
		records:        records,
		pinnedByConfig: pinned,
		tags:           newLRU[Tag](16 << 10),
		manifests:      newLRU[Manifest](8 << 10),
		members:        newLRU[Member](64 << 10),
		answers:        newLRU[Referrers](1 << 10),
		uses:           uses{unsaved: make(map[string]int64)},
		leases:         leases{held: make(map[Digest]int), removing: make(map[Digest]chan struct{})},
	}
}

// change begins a change of records and their decoded copies, and returns the
// function that ends it.
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

// load returns the decoded copy of a record, or decodes the record. The lock is
// not held for that; what changed meanwhile is not remembered.
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

// read decodes a record. One that cannot be decoded counts as missing.
func (l *Ledger) read(b cache.Bucket, key string, into any) bool {
	raw, err := l.records.Get(b, key)
	return err == nil && json.Unmarshal(raw, into) == nil
}

func (l *Ledger) write(b cache.Bucket, key string, v any) {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("record of %s: %v", b, err)) // only for types that JSON lacks
	}
	l.records.Put(b, key, raw)
}

func (l *Ledger) keys(b cache.Bucket, prefix string) (all []string) {
	// Records that cannot be scanned are lost already.
	_ = l.records.Scan(b, prefix, func(key string, _ []byte) bool {
		all = append(all, key)
		return true
	})
	return all
}

// Flush returns when everything that was put before the call is durable. Uses
// may still be in memory.
func (l *Ledger) Flush(ctx context.Context) error { return l.records.Flush(ctx) }
