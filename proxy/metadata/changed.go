package metadata

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/entrepot/entrepot/cache"
)

// followed are records of which it is noted in which repositories they change,
// once somebody follows that. What is noted is no more than there are
// repositories.
type followed struct {
	cache.Records
	on atomic.Bool

	mu      sync.Mutex
	changed map[string]bool // by the beginning of their keys
}

// decisive are the buckets that decide whether an image is complete, or pinned.
var decisive = map[cache.Bucket]bool{
	bucketTag: true, bucketManifest: true, bucketMember: true, bucketHeld: true, bucketReferrers: true, bucketSeen: true,
	bucketAttached: true, bucketPin: true,
}

func (f *followed) Put(b cache.Bucket, key string, value []byte) {
	f.Records.Put(b, key, value)
	f.note(b, key)
}

func (f *followed) Delete(b cache.Bucket, key string) {
	f.Records.Delete(b, key)
	f.note(b, key)
}

// note is called after a change: whoever takes it sees the change.
func (f *followed) note(b cache.Bucket, key string) {
	if !decisive[b] || !f.on.Load() {
		return
	}
	upstream := strings.IndexByte(key, 0) + 1
	repo := key[:upstream+strings.IndexByte(key[upstream:], 0)+1] // as Key makes it
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.changed[repo] {
		f.changed[strings.Clone(repo)] = true
	}
}

// FollowChanges has it noted from now on in which repositories records change.
func (l *Ledger) FollowChanges() { l.records.on.Store(true) }

// TakeChanged returns the repositories in which a record has changed since the
// last call that says whether an image is complete, or whether it is pinned. The
// times of checks and uses say neither.
func (l *Ledger) TakeChanged() (all []Repository) {
	f := l.records
	f.mu.Lock()
	defer f.mu.Unlock()
	for prefix := range f.changed {
		if repo, _, ok := SplitKey(prefix); ok {
			all = append(all, repo)
		}
	}
	clear(f.changed)
	return all
}
