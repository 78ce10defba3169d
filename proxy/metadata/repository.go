package metadata

import (
	"strings"

	lru "github.com/hashicorp/golang-lru/v2"
)

// Repositories returns the repositories of which at least one manifest is
// cached.
func (l *Ledger) Repositories() (all []Repository, err error) {
	err = l.records.Scan(bucketManifest, "", func(key string, _ []byte) bool {
		// Keys are scanned in order.
		if repo, _, ok := SplitKey(key); ok && (len(all) == 0 || all[len(all)-1] != repo) {
			all = append(all, repo)
		}
		return true
	})
	return all, err
}

// DropRepository removes everything about a repository except for its pins.
func (l *Ledger) DropRepository(repo Repository) {
	prefix := Key(repo, "")
	defer l.beginChange()()
	for _, b := range repositoryBuckets {
		for _, key := range l.keys(b, prefix) {
			l.records.Delete(b, key)
		}
	}
	dropDecoded(l.tags, prefix)
	dropDecoded(l.manifests, prefix)
	dropDecoded(l.members, prefix)
	dropDecoded(l.answers, prefix)
	l.leases.forgotten.Add(1)
}

func dropDecoded[V any](c *lru.Cache[string, V], prefix string) {
	for _, key := range c.Keys() {
		if strings.HasPrefix(key, prefix) {
			c.Remove(key)
		}
	}
}

// RebuildMembers records again what the manifests on record reference, after
// the records of members were lost. It returns the number of manifests.
func (l *Ledger) RebuildMembers() (manifests int, err error) {
	type entry struct {
		repo Repository
		m    Manifest
	}
	var found []entry
	err = l.EachManifest(func(repo Repository, _ Digest, m Manifest) { found = append(found, entry{repo, m}) })
	for _, e := range found {
		l.putMembers(e.repo, e.m)
	}
	return len(found), err
}
