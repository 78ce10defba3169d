package disk

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"github.com/entrepot/entrepot/cache"
)

// retryTimes is how many times FlushEvery a flush that failed waits to be
// tried again, when nothing new comes first.
const retryTimes = 5

// run flushes: a moment after something came, when a lot has come, when asked,
// and at the end.
func (r *records) run() {
	defer close(r.stopped)
	due := time.NewTimer(time.Hour)
	due.Stop()
	defer due.Stop()
	for {
		var err error
		select {
		case <-r.wake:
			due.Reset(r.opts.FlushEvery)
		case <-due.C:
			err = r.flush()
		case <-r.hurry:
			err = r.flush()
		case answer := <-r.asks:
			err = r.flush()
			answer <- err
		case <-r.closing:
			r.finish()
			return
		}
		if err != nil {
			due.Reset(retryTimes * r.opts.FlushEvery)
		}
	}
}

// finish takes no more records, writes the last and lets go of the files.
func (r *records) finish() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	err := r.flush()
	r.opening.Lock()
	defer r.opening.Unlock()
	if db := r.current(); db != nil {
		err = errors.Join(err, db.close())
	}
	r.last = errors.Join(err, r.journal.close())
}

// flush makes durable what waited when it was called.
func (r *records) flush() error {
	err := r.flushAll()
	switch {
	case err != nil:
		err = fmt.Errorf("write records: %w", noRoom(err))
		r.opts.OnRecordsError(err)
		if !r.failing {
			r.opts.Log.Error("records can't be written; they are kept in memory and tried again", "error", err)
		}
	case r.failing:
		r.opts.Log.Info("records are written again")
	}
	r.failing = err != nil
	return err
}

func (r *records) flushAll() error {
	if r.current() == nil {
		if err := r.replace(nil, nil); err != nil {
			return err
		}
	}
	r.mu.Lock()
	r.scheduled = false
	db, mend := r.db, r.replaying && r.mendable
	group := r.all()
	r.mu.Unlock()
	if db == nil {
		return errDamaged // since a moment; the next flush finds another
	}

	for part := range slices.Chunk(group, groupLength) {
		if err := r.write(db, part); err != nil {
			return r.lose(db, err)
		}
	}
	if mend {
		if err := db.update(markComplete); err != nil {
			return r.lose(db, err)
		}
		r.mu.Lock()
		r.replaying = r.replaying && r.db != db
		r.mu.Unlock()
	}
	return r.lose(db, r.shorten(db))
}

// lose replaces the database where err says that it is damaged.
func (r *records) lose(db *database, err error) error {
	if errors.Is(err, errDamaged) {
		r.replace(db, err)
	}
	return err
}

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

// shorten rewrites the journal where it has grown too long.
func (r *records) shorten(db *database) error {
	r.mu.Lock()
	whole := r.db == db && !r.replaying
	r.mu.Unlock()
	if !whole || !r.journal.grown() {
		return nil
	}
	return r.journal.rewrite(db)
}

// dropOldest forgets a tenth of what waits and is nowhere else, because the
// disk has taken nothing for long and memory has its bound. r.mu is held.
func (r *records) dropOldest() {
	var loose []moving
	for b, records := range r.waiting {
		for key, w := range records {
			if !w.journaled {
				loose = append(loose, moving{recordName{b, key}, w})
			}
		}
	}
	slices.SortFunc(loose, func(a, b moving) int {
		if a.order < b.order {
			return -1
		}
		return 1
	})
	drop := max(1, len(loose)/10)
	for _, m := range loose[:drop] {
		r.remove(m.bucket, m.key)
	}
	err := fmt.Errorf("%d records are forgotten: %w", drop, cache.ErrFull)
	r.opts.Log.Warn("too many records wait for a disk that takes none; the oldest are forgotten", "count", drop)
	r.opts.OnRecordsError(err)
}
