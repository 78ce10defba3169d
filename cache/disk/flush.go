package disk

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/limits/panics"
)

// retryFactor is how many times FlushEvery to wait before a failed flush is
// retried, unless new records come first.
const retryFactor = 5

// againAfter is how long what has panicked is not tried again by itself: it would
// fail in the same way, and be logged each time.
const againAfter = time.Minute

// run flushes shortly after a record was put, when many are waiting, when
// asked, and at the end.
func (r *records) run() {
	defer close(r.stopped)
	due := time.NewTimer(time.Hour)
	due.Stop()
	defer due.Stop()
	var notBefore time.Time // unless asked
	for {
		var err error
		select {
		case <-r.wake:
			due.Reset(max(r.opts.FlushEvery, time.Until(notBefore)))
		case <-due.C:
			err = r.flush()
		case <-r.flushNow:
			if time.Now().Before(notBefore) {
				continue
			}
			err = r.flush()
		case answer := <-r.flushRequests:
			err = r.flush()
			answer <- err
		case <-r.stop:
			r.closeErr = r.finish()
			return
		}
		switch {
		case errors.Is(err, panics.ErrPanic):
			notBefore = time.Now().Add(againAfter)
			due.Reset(againAfter)
		case err != nil:
			due.Reset(retryFactor * r.opts.FlushEvery)
		}
	}
}

// finish accepts no more records, writes the last ones and closes the files.
func (r *records) finish() (err error) {
	defer panics.Catch(writingRecords, &err)
	r.endChanges()
	err = r.flush()
	r.replaceMu.Lock()
	defer r.replaceMu.Unlock()
	r.finished = true
	if db := r.current(); db != nil {
		err = errors.Join(err, db.close())
	}
	return errors.Join(err, r.journal.close())
}

// endChanges accepts no more records.
func (r *records) endChanges() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
}

// writingRecords is the task of the goroutine that writes them.
const writingRecords = "writing records"

// flush makes the records durable that were pending when it was called.
func (r *records) flush() (err error) {
	defer panics.Catch(writingRecords, &err)
	err = r.flushAll()
	switch {
	case err != nil:
		err = fmt.Errorf("write records: %w", wrapFull(err))
		r.opts.OnRecordsError(err)
		if !r.flushFailing && !errors.Is(err, cache.ErrDown) {
			r.opts.Log.Error("records can't be written; they are kept in memory, and writing is retried", "error", err)
		}
	case r.flushFailing:
		r.opts.Log.Info("records can be written again")
	}
	r.flushFailing = err != nil
	return err
}

func (r *records) flushAll() error {
	if r.current() == nil {
		if err := r.replace(nil, nil); err != nil {
			return err
		}
	}
	taken := time.Now()
	db, group, complete := r.take()
	if db == nil {
		return errDamaged // just now; the next flush has a new one
	}

	if len(group) > 0 {
		var err error
		if db, err = r.restore(db); err != nil {
			return r.replaceIfDamaged(db, err)
		}
	}
	for part := range slices.Chunk(group, maxGroup) {
		if err := r.write(db, part); err != nil {
			return r.replaceIfDamaged(db, err)
		}
	}
	r.mu.Lock()
	r.oldest = taken
	r.mu.Unlock()
	if complete {
		if err := db.update(markComplete); err != nil {
			return r.replaceIfDamaged(db, err)
		}
		r.mu.Lock()
		r.replaying = r.replaying && r.db != db
		r.mu.Unlock()
	}
	return r.replaceIfDamaged(db, r.compactJournal(db))
}

// take returns what is to be written, to what database, and whether that is
// complete then.
func (r *records) take() (db *database, group []pendingRecord, complete bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.scheduled = false
	return r.db, r.sortedPending(), r.replaying && r.journalReadable
}

// replaceIfDamaged replaces the database if err says that it is damaged.
func (r *records) replaceIfDamaged(db *database, err error) error {
	if errors.Is(err, errDamaged) {
		_ = r.replace(db, err) // it logs its own errors
	}
	return err
}

// compactJournal rewrites the journal if it has grown too long.
func (r *records) compactJournal(db *database) error {
	r.mu.Lock()
	whole := r.db == db && !r.replaying
	r.mu.Unlock()
	if !whole || !r.journal.needsRewrite() {
		return nil
	}
	return r.journal.rewrite(db)
}

// dropOldest drops a tenth of the records that are only in memory, because the
// disk could not be written for long and memory is limited. r.mu is held.
func (r *records) dropOldest() {
	var unjournaled []pendingRecord
	for b, records := range r.pending {
		for key, w := range records {
			if !w.journaled {
				unjournaled = append(unjournaled, pendingRecord{recordName{b, key}, w})
			}
		}
	}
	slices.SortFunc(unjournaled, func(a, b pendingRecord) int {
		if a.order < b.order {
			return -1
		}
		return 1
	})
	drop := max(1, len(unjournaled)/10)
	for _, m := range unjournaled[:drop] {
		r.remove(m.bucket, m.key)
	}
	err := fmt.Errorf("%d records were dropped: %w", drop, cache.ErrFull)
	r.opts.Log.Warn("too many records are waiting for a disk that can't be written; the oldest were dropped", "count", drop)
	r.opts.OnRecordsError(err)
}
