package disk

import (
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/bbolt"
)

// groupLength is how many records one write transaction holds at most.
const groupLength = 10_000

// moving is a record on its way to the database.
type moving struct {
	recordName
	*waiting
}

// all is everything that waits, in the order of the database. r.mu is held.
func (r *records) all() []moving {
	group := make([]moving, 0, r.count)
	for b, records := range r.waiting {
		for key, w := range records {
			group = append(group, moving{recordName{b, key}, w})
		}
	}
	slices.SortFunc(group, func(a, b moving) int {
		if c := strings.Compare(string(a.bucket), string(b.bucket)); c != 0 {
			return c
		}
		return strings.Compare(a.key, b.key)
	})
	return group
}

// write moves one group: the precious to the journal, then all to the
// database, and only then out of the map.
func (r *records) write(db *database, group []moving) error {
	if err := r.opts.faults.refuse(r.opts.faults.records); err != nil {
		return err
	}
	if err := r.writeJournal(group); err != nil {
		return err
	}
	err := db.update(func(tx *bbolt.Tx) error {
		for _, m := range group {
			if err := apply(tx, m); err != nil {
				return fmt.Errorf("record %s/%q: %w", m.bucket, m.key, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.db != db {
		return errDamaged // found meanwhile: what was written is set aside
	}
	for _, m := range group {
		if r.waiting[m.bucket][m.key] == m.waiting {
			r.remove(m.bucket, m.key)
		}
	}
	return nil
}

func apply(tx *bbolt.Tx, m moving) error {
	if m.deleted {
		if bucket := tx.Bucket([]byte(m.bucket)); bucket != nil {
			return bucket.Delete([]byte(m.key))
		}
		return nil
	}
	bucket, err := tx.CreateBucketIfNotExists([]byte(m.bucket))
	if err != nil {
		return err
	}
	return bucket.Put([]byte(m.key), seal(m.key, m.value))
}

// writeJournal appends what is precious and not in the journal yet.
func (r *records) writeJournal(group []moving) error {
	var lines []byte
	r.mu.Lock()
	for _, m := range group {
		if r.journal.precious[m.bucket] && !m.journaled {
			lines = appendLine(lines, change{m.bucket, m.key, m.value, m.deleted})
		}
	}
	r.mu.Unlock()
	if err := r.journal.append(lines); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range group {
		if r.journal.precious[m.bucket] && !m.journaled {
			m.journaled = true
			if r.waiting[m.bucket][m.key] == m.waiting {
				r.loose--
			}
		}
	}
	return nil
}
