package metadata

import "github.com/entrepot/entrepot/cache"

// Present says what was in the cache when a watch began, for [Watch.DropStale].
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
// their referrers are removed with these. What has come since the watch began
// keeps its records.
func (w *Watch) DropStale(present Present) {
	w.dropStale(bucketMember, func(key string) bool {
		_, d, ok := SplitKey(key)
		return ok && !present.Member(key, Digest(d)) && !present.Manifest(key)
	})
	w.dropStale(bucketUsed, func(key string) bool {
		if _, _, isManifest := SplitKey(key); isManifest {
			return !present.Manifest(key)
		}
		return !present.Blob(Digest(key))
	})
	for _, b := range []cache.Bucket{bucketTagList, bucketAbsent} {
		w.dropStale(b, func(key string) bool {
			repo, _, ok := SplitKey(key)
			return ok && !present.Repository(repo)
		})
	}
}

// dropStale removes the stale records of a bucket, each under the lock: what is
// put on record or used meanwhile is seen.
func (w *Watch) dropStale(b cache.Bucket, isStale func(key string) bool) {
	var all []string
	// What cannot be scanned stays.
	_ = w.l.records.Scan(b, "", func(key string, _ []byte) bool {
		if isStale(key) {
			all = append(all, key)
		}
		return true
	})
	for _, key := range all {
		w.dropOne(b, key)
	}
}

func (w *Watch) dropOne(b cache.Bucket, key string) {
	defer w.l.beginChange()()
	_, isUnsaved := w.l.uses.unsaved[key]
	if d := digestIn(key); w.used[key] || w.used[string(d)] || isUnsaved || w.isLeased(d) {
		return
	}
	switch b {
	case bucketMember:
		w.l.removeMember(key)
	case bucketUsed:
		w.l.removeUse(key)
	case bucketTagList, bucketAbsent:
		if repo, _, _ := SplitKey(key); !w.l.hasManifests(repo) {
			w.l.records.Delete(b, key)
		}
	}
}

// digestIn is the digest of the content that a record is about.
func digestIn(key string) Digest {
	if _, d, ok := SplitKey(key); ok {
		return Digest(d)
	}
	return Digest(key)
}

// ForgetReferrers removes the recorded answer about a manifest, unless that has
// come since the watch began.
func (w *Watch) ForgetReferrers(repo Repository, subject Digest) {
	key := Key(repo, subject.String())
	defer w.l.beginChange()()
	if w.isLeased(subject) || w.l.isKept(key) {
		return
	}
	w.l.records.Delete(bucketReferrers, key)
	w.l.unkept.Remove(key)
	w.l.answers.Remove(key)
}
