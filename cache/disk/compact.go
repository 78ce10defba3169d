package disk

import (
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/limits/panics"
)

// bbolt keeps the pages that it does not use any more. So the database is written
// anew when more of it is free than in use, and then takes only what it needs.
// Before that is so, about as much has to be written as is written then.

const (
	// looseBytes is how much of a database may be free in any case.
	looseBytes = 4 << 20
	// compactAgain is how long it is not tried again after it failed.
	compactAgain = 10 * time.Minute
)

// measure notes how large the database is, unless it is closed. It reads no page
// but the first.
func (d *database) measure() {
	_ = d.bolt.View(func(tx *bbolt.Tx) error {
		// Nobody can unmap the file meanwhile: a writer that was stuck in the
		// kernel may come here while the database is closed.
		of := d.bolt.Stats()
		d.size.Store(tx.Size())
		d.free.Store(int64(of.FreePageN+of.PendingPageN) * int64(d.bolt.Info().PageSize))
		return nil
	})
}

// isLoose says whether the database is to be written anew.
func (d *database) isLoose() bool {
	free := d.free.Load()
	return free > looseBytes && free > d.size.Load()-free
}

// bytes is how many bytes the database takes, without what it gives back in a
// moment.
func (d *database) bytes() int64 {
	free := d.free.Load()
	used := d.size.Load() - free
	return used + min(free, max(looseBytes, used))
}

// bytes is how many bytes all records take, with the database that is being
// written anew.
func (r *records) bytes() int64 {
	n := r.journal.bytes.Load()
	if db := r.current(); db != nil {
		n += db.bytes()
	}
	if fresh := r.fresh.Load(); fresh != nil {
		n += fresh.size.Load()
	}
	return n
}

// compactDatabase writes the database anew if it is loose. It is called by the
// goroutine that flushes, so nobody else writes.
func (r *records) compactDatabase(db *database) error {
	if !db.isLoose() || time.Now().Before(r.compactAfter) {
		return nil
	}
	before := db.size.Load()
	fresh, err := r.compact(db)
	switch {
	case errors.Is(err, errDamaged), fresh == nil && err == nil:
		return err
	case err != nil:
		r.compactAfter = time.Now().Add(compactAgain)
		r.opts.Log.Warn("the database of records could not be made smaller", "error", err)
		return nil
	}
	r.opts.Log.Info("the database of records was made smaller", "bytes_before", before, "bytes", fresh.size.Load())
	return r.shrinkJournal(fresh)
}

// shrinkJournal rewrites the journal after the database has shrunk: it has what
// is not there any more, too.
func (r *records) shrinkJournal(db *database) error {
	r.mu.Lock()
	whole := r.db == db && !r.replaying
	r.mu.Unlock()
	if !whole || r.journal.bytes.Load() <= rewriteBytes {
		return nil
	}
	if r.journal.file == nil {
		if err := r.journal.open(); err != nil {
			return fmt.Errorf("journal of records: %w", err)
		}
	}
	return r.journal.rewrite(db)
}

func (r *records) compact(old *database) (*database, error) {
	r.replaceMu.Lock()
	defer r.replaceMu.Unlock()
	if r.current() != old {
		return nil, nil //nolint:nilnil // there is another one already
	}
	next := r.path + ".new"
	_ = r.opts.Files.Remove(next) // of a process that ended early
	if err := r.copyRecords(old, next); err != nil {
		_ = r.opts.Files.Remove(next)
		return nil, err
	}
	fresh, err := r.install(next)
	if err != nil {
		_ = r.opts.Files.Remove(next)
		return nil, err
	}
	go func() {
		defer panics.Report("closing the database")
		old.retire()
	}()
	return fresh, nil
}

// copyRecords writes all records of a database to a new one at path, in groups,
// so that it takes the same memory however many there are.
func (r *records) copyRecords(from *database, path string) error {
	to, err := openDatabase(r.opts.Files, r.opts.places, path)
	if err != nil {
		return err
	}
	r.fresh.Store(to)
	defer r.fresh.Store(nil)
	to.bolt.NoSync = true // until it is complete
	copying := restoring{db: to, faults: r.opts.faults}
	err = copying.copyFrom(from)
	if err == nil {
		err = to.sync()
	}
	return errors.Join(err, to.close())
}

func (r *restoring) copyFrom(from *database) error {
	buckets, err := from.buckets()
	if err != nil {
		return err
	}
	for _, b := range buckets {
		after, inclusive := "", true
		for more := true; more; {
			page, err := from.page(b, "", after, inclusive, pageLength)
			if err != nil {
				return err
			}
			for _, rec := range page {
				if err := r.add(change{bucket: b, key: rec.key, value: rec.value}); err != nil {
					return fmt.Errorf("copy the records: %w", err)
				}
				after, inclusive = rec.key, false
			}
			more = len(page) == pageLength
		}
	}
	return r.write()
}

// buckets returns the names of all buckets.
func (d *database) buckets() (all []cache.Bucket, err error) {
	err = d.view(func(tx *bbolt.Tx) error {
		all, err = d.walk.buckets(d.walk.begin(d, tx))
		return err
	})
	return all, err
}

// retire has all who use the database turn to another one, and closes it when
// nobody reads it.
func (d *database) retire() {
	d.breaking.Do(func() { close(d.broken) })
	d.reading.Lock()
	defer d.reading.Unlock()
	_ = d.bolt.Close() // nothing of it is needed any more
}
