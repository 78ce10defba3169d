package disk

import (
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/bbolt"
)

// maxGroup is how many records one write transaction has at most.
const maxGroup = 10_000

// pendingRecord is a record that is to be written to the database.
type pendingRecord struct {
	recordName
	*pendingChange
}

// sortedPending returns all pending records in the order of the database. r.mu
// is held.
func (r *records) sortedPending() []pendingRecord {
	group := make([]pendingRecord, 0, r.count)
	for b, records := range r.pending {
		for key, w := range records {
			group = append(group, pendingRecord{recordName{b, key}, w})
		}
	}
	slices.SortFunc(group, func(a, b pendingRecord) int {
		if c := strings.Compare(string(a.bucket), string(b.bucket)); c != 0 {
			return c
		}
		return strings.Compare(a.key, b.key)
	})
	return group
}

// write writes one group: first the journal, then the database. Only then are
// the records no longer pending.
func (r *records) write(db *database, group []pendingRecord) error {
	if err := r.opts.faults.inject(r.opts.faults.records); err != nil {
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
	db.mapMoreAfter(len(group))
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.db != db {
		return errDamaged // damaged meanwhile: what was written went with it
	}
	for _, m := range group {
		if r.pending[m.bucket][m.key] == m.pendingChange {
			r.remove(m.bucket, m.key)
		}
	}
	return nil
}

func apply(tx *bbolt.Tx, m pendingRecord) error {
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

// linesOf returns the lines of the records that writeJournal appends.
func (r *records) linesOf(group []pendingRecord) (lines []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range group {
		if r.journal.buckets[m.bucket] && !m.journaled {
			lines = appendLine(lines, change{m.bucket, m.key, m.value, m.deleted})
		}
	}
	return lines
}

// writeJournal appends the records of journaled buckets that are not in the
// journal yet.
func (r *records) writeJournal(group []pendingRecord) error {
	if err := r.journal.append(r.linesOf(group)); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range group {
		if r.journal.buckets[m.bucket] && !m.journaled {
			m.journaled = true
			if r.pending[m.bucket][m.key] == m.pendingChange {
				r.unjournaled--
			}
		}
	}
	return nil
}
