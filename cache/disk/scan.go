package disk

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/entrepot/entrepot/cache"
)

// pageLength is how many records one read transaction of a scan returns.
const pageLength = 256

// place is where a scan has got to.
type place struct {
	key       string
	inclusive bool
}

func (r *records) Scan(b cache.Bucket, prefix string, fn func(key string, value []byte) bool) error {
	at := place{prefix, true}
	for range 2 {
		db, waiting, err := r.behind(b, prefix, at)
		if err == nil {
			err = scan(db, waiting, b, prefix, &at, fn)
		}
		if !errors.Is(err, errDamaged) {
			return err
		}
		// On with what could be had back, from where the damage was.
		_ = r.replace(db, err) // it says itself what it could not do
	}
	return fmt.Errorf("scan %s: %w", b, errDamaged)
}

// named is a record that waits, with its key.
type named struct {
	key string
	*waiting
}

// behind is the database and what waits, in its order, behind a place.
func (r *records) behind(b cache.Bucket, prefix string, at place) (*database, []named, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, nil, fmt.Errorf("scan %s: %w", b, errRecordsClosed)
	}
	var keys []named
	for key, w := range r.waiting[b] {
		if strings.HasPrefix(key, prefix) && (key > at.key || at.inclusive && key == at.key) {
			keys = append(keys, named{key, w})
		}
	}
	slices.SortFunc(keys, func(a, b named) int { return strings.Compare(a.key, b.key) })
	return r.db, keys, nil
}

// scan merges a database with what waits, of which the latter is newer.
func scan(db *database, waiting []named, b cache.Bucket, prefix string, at *place, fn func(string, []byte) bool) error {
	for more := true; more; {
		var page []record
		if db != nil {
			var err error
			if page, err = db.page(b, at.key, at.inclusive, pageLength); err != nil {
				return err
			}
		}
		more = len(page) == pageLength
		if end := slices.IndexFunc(page, func(rec record) bool { return !strings.HasPrefix(rec.key, prefix) }); end >= 0 {
			page, more = page[:end], false
		}
		for len(page) > 0 || !more && len(waiting) > 0 {
			var next record
			deleted := false
			if len(page) == 0 || len(waiting) > 0 && waiting[0].key <= page[0].key {
				next, deleted = record{waiting[0].key, waiting[0].value}, waiting[0].deleted
				waiting = waiting[1:]
				if len(page) > 0 && page[0].key == next.key {
					page = page[1:]
				}
			} else {
				next, page = page[0], page[1:]
			}
			*at = place{next.key, false}
			if !deleted && !fn(next.key, next.value) {
				return nil
			}
		}
	}
	return nil
}
