package metadata

import (
	"strings"

	lru "github.com/hashicorp/golang-lru/v2"
)

// Repositories returns those of which a manifest is kept.
func (l *Ledger) Repositories() (all []Repository, err error) {
	err = l.records.Scan(bucketManifest, "", func(key string, _ []byte) bool {
		// Keys come in their order.
		if repo, _, ok := SplitKey(key); ok && (len(all) == 0 || all[len(all)-1] != repo) {
			all = append(all, repo)
		}
		return true
	})
	return all, err
}

// DropRepository forgets everything about a repository but its pins.
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

// Reindex notes again what the manifests on record name, after the records of
// members were lost. It returns how many manifests there are.
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
