package metadata

import (
	"errors"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/entrepot/entrepot/cache"
)

// whose are the copies in memory of what says whose a blob is.
type whose struct {
	members *lru.Cache[string, Member]
	private *lru.Cache[string, bool] // whether content was fetched with credentials
}

// PutPrivate records that content is fetched with credentials: it may be
// private to the repository that it is fetched from.
func (l *Ledger) PutPrivate(d Digest) {
	if private, known := l.private.Get(string(d)); known && private {
		return
	}
	defer l.beginChange()()
	if !l.has(bucketPrivate, string(d)) {
		l.records.Put(bucketPrivate, string(d), []byte{1})
	}
	l.private.Add(string(d), true)
}

// IsPrivate says whether content was fetched with credentials. What can't be
// read counts as private: the upstream is asked then. The answer is kept in
// memory, because hits need it.
func (l *Ledger) IsPrivate(d Digest) bool {
	if private, known := l.private.Get(string(d)); known {
		return private
	}
	before := l.changes.Load()
	_, err := l.records.Get(bucketPrivate, string(d))
	if err != nil && !errors.Is(err, cache.ErrNotFound) {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changes.Load() == before {
		l.private.Add(string(d), err == nil)
	}
	return err == nil
}

// DropPrivate removes that record, because the content is no longer stored. It
// is called within [Watch.Remove].
func (l *Ledger) DropPrivate(d Digest) {
	defer l.beginChange()()
	l.records.Delete(bucketPrivate, string(d))
	l.private.Remove(string(d))
}
