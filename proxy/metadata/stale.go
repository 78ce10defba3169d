package metadata

import "github.com/entrepot/entrepot/cache"

// Present says what is in the cache, for [Ledger.DropStale].
type Present struct {
	Repository func(repo Repository) bool // whether a manifest of it is
	Manifest   func(key string) bool      // by the key of its record
	Blob       func(d Digest) bool
	// Member says whether a blob is there, or a manifest of the repository
	// references it. key is that of its record.
	Member func(key string, d Digest) bool
}

// DropStale removes the records of what is not in the cache any more, and which
// only save a question to the upstream: which blobs belong to a repository, when
// something was last used, which tags there are. Those of tags, manifests and
// their referrers are removed with these.
func (l *Ledger) DropStale(present Present) {
	stale := func(b cache.Bucket, isStale func(key string) bool) {
		var all []string
		// What cannot be scanned stays.
		_ = l.records.Scan(b, "", func(key string, _ []byte) bool {
			if isStale(key) {
				all = append(all, key)
			}
			return true
		})
		for _, key := range all {
			l.dropStale(b, key)
		}
	}
	stale(bucketMember, func(key string) bool {
		_, d, ok := SplitKey(key)
		return ok && !present.Member(key, Digest(d)) && !present.Manifest(key)
	})
	stale(bucketUsed, func(key string) bool {
		if _, _, isManifest := SplitKey(key); isManifest {
			return !present.Manifest(key)
		}
		return !present.Blob(Digest(key))
	})
	stale(bucketTagList, func(key string) bool {
		repo, _, ok := SplitKey(key)
		return ok && !present.Repository(repo)
	})
}

// dropStale removes one record, with its copy in memory.
func (l *Ledger) dropStale(b cache.Bucket, key string) {
	defer l.beginChange()()
	switch b {
	case bucketMember:
		l.removeMember(key)
	case bucketUsed:
		if _, isUsedAgain := l.uses.unsaved[key]; !isUsedAgain {
			l.removeUse(key)
		}
	default:
		l.records.Delete(b, key)
	}
}
