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

// scanPosition is how far a scan has got.
type scanPosition struct {
	key       string
	inclusive bool
}

func (r *records) Scan(b cache.Bucket, prefix string, fn func(key string, value []byte) bool) error {
	at := scanPosition{prefix, true}
	for range 2 {
		db, waiting, err := r.snapshot(b, prefix, at)
		if err == nil {
			err = scan(db, waiting, b, prefix, &at, fn)
		}
		if !errors.Is(err, errDamaged) {
			return err
		}
		// Continue with the restored records from where the damage was.
		_ = r.replace(db, err) // it logs its own errors
	}
	return fmt.Errorf("scan %s: %w", b, errDamaged)
}

// pendingKey is a pending change with its key.
type pendingKey struct {
	key string
	*pendingChange
}

// snapshot returns the database, and the pending changes after a position in
// order.
func (r *records) snapshot(b cache.Bucket, prefix string, at scanPosition) (*database, []pendingKey, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, nil, fmt.Errorf("scan %s: %w", b, errRecordsClosed)
	}
	var keys []pendingKey
	for key, w := range r.pending[b] {
		if strings.HasPrefix(key, prefix) && (key > at.key || at.inclusive && key == at.key) {
			keys = append(keys, pendingKey{key, w})
		}
	}
	slices.SortFunc(keys, func(a, b pendingKey) int { return strings.Compare(a.key, b.key) })
	return r.db, keys, nil
}

// scan merges a database with pending changes, which are newer.
func scan(db *database, waiting []pendingKey, b cache.Bucket, prefix string, at *scanPosition, fn func(string, []byte) bool) error {
	for more := true; more; {
		var page []record
		if db != nil {
			var err error
			if page, err = db.page(b, prefix, at.key, at.inclusive, pageLength); err != nil {
				return err
			}
		}
		more = len(page) == pageLength
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
			*at = scanPosition{next.key, false}
			if !deleted && !fn(next.key, next.value) {
				return nil
			}
		}
	}
	return nil
}
