package disk

import (
	"errors"
	"fmt"
	"slices"
	"time"

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
	r.finished = true
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
	group, taken := r.all(), time.Now()
	r.mu.Unlock()
	if db == nil {
		return errDamaged // since a moment; the next flush finds another
	}

	for part := range slices.Chunk(group, groupLength) {
		if err := r.write(db, part); err != nil {
			return r.lose(db, err)
		}
	}
	r.mu.Lock()
	r.oldest = taken
	r.mu.Unlock()
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
		_ = r.replace(db, err) // it says itself what it could not do
	}
	return err
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
