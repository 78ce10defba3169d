package metadata

import (
	"strings"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/entrepot/entrepot/cache"
)

// Repositories returns the repositories of which at least one manifest is
// cached.
func (l *Ledger) Repositories() ([]Repository, error) { return l.repositoriesIn(bucketManifest) }

func (l *Ledger) repositoriesIn(b cache.Bucket) (all []Repository, err error) {
	err = l.records.Scan(b, "", func(key string, _ []byte) bool {
		// Keys are scanned in order.
		if repo, _, ok := SplitKey(key); ok && (len(all) == 0 || all[len(all)-1] != repo) {
			all = append(all, repo)
		}
		return true
	})
	return all, err
}

// DropRepository removes everything about a repository except for its pins.
func (l *Ledger) DropRepository(repo Repository) { l.dropAll(Key(repo, "")) }

// DropRepositories removes everything about all repositories except for pins.
func (l *Ledger) DropRepositories() { l.dropAll("") }

// dropAll removes all records of repositories whose keys have that prefix.
func (l *Ledger) dropAll(prefix string) {
	defer l.beginChange()()
	for _, b := range repositoryBuckets {
		for _, key := range l.keys(b, prefix) {
			l.records.Delete(b, key)
		}
	}
	dropDecoded(l.tags, prefix)
	dropDecoded(l.mediaTypes, prefix)
	dropDecoded(l.members, prefix)
	dropDecoded(l.answers, prefix)
	dropDecoded(l.unkept, prefix)
	dropDecoded(l.untagged, prefix)
	l.leases.forgotten.Add(1)
}

func dropDecoded[V any](c *lru.Cache[string, V], prefix string) {
	for _, key := range c.Keys() {
		if strings.HasPrefix(key, prefix) {
			c.Remove(key)
		}
	}
}
