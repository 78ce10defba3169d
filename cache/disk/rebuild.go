package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"github.com/entrepot/entrepot/cache"
)

// maxDamagedDatabases is how many damaged databases are kept for inspection.
const maxDamagedDatabases = 3

// A database is complete if it contains everything that was in the journal when
// it was created. Without this mark it is new, or the process ended before
// everything was restored; in both cases the journal is read.
const (
	bucketState = cache.Bucket("\x00state")
	keyComplete = "complete"
)

func markComplete(tx *bbolt.Tx) error {
	return apply(tx, pendingRecord{recordName{bucketState, keyComplete}, &pendingChange{}})
}

// start opens the database for the first time. It only returns errors that the
// user has to fix. A damaged database, or a lack of space for a new one, is not
// one of them.
func (r *records) start() error {
	err := r.replace(nil, nil)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, cache.ErrLocked):
		return fmt.Errorf("%w; find the process that has it open, and stop it", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the records of the cache can't be opened: %w; make this user the owner of the whole cache folder", err)
	}
	r.opts.Log.Error("the records can't be written to disk for now; they are kept in memory, and writing is retried", "error", err)
	r.opts.OnRecordsError(err)
	return nil
}

func (r *records) current() *database {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.db
}

// replace replaces old, which is damaged because of cause, by another database.
// A nil old means that there is none. It does nothing if that has been done
// meanwhile. Other callers that find the damage wait until it returns.
func (r *records) replace(old *database, cause error) error {
	r.replaceMu.Lock()
	defer r.replaceMu.Unlock()
	if r.finished {
		return errRecordsClosed
	}
	if r.current() != old {
		return nil
	}
	if old != nil {
		old.close()
		if err := r.quarantine(cause); err != nil {
			r.opts.Log.Error("the damaged records can't be moved out of the way", "error", err)
		}
	}

	db, complete, err := r.openOrRecreate()
	journalReadable := true
	var live map[recordName][]byte // what could only be restored into memory
	replay := !complete && !(old == nil && r.isReplaying())
	if replay {
		db, live, journalReadable = r.replay(db, old != nil)
		complete = db != nil && live == nil && journalReadable && db.update(markComplete) == nil
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	r.db = db
	if replay {
		r.replaying, r.journalReadable = !complete, journalReadable
		for name, value := range live {
			if r.pending[name.bucket][name.key] == nil {
				r.put(name.bucket, name.key, &pendingChange{value: value, journaled: true})
			}
		}
		if r.count > 0 && !r.scheduled {
			r.scheduled = true
			signal(r.wake)
		}
	}
	return err
}

func (r *records) isReplaying() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.replaying
}

// openOrRecreate opens the database, or creates a new one if it is damaged.
func (r *records) openOrRecreate() (db *database, complete bool, err error) {
	for range 2 {
		db, err = openDatabase(r.opts.Files, r.opts.places, r.path)
		if err == nil {
			_, err = db.get(bucketState, keyComplete)
			if err == nil || errors.Is(err, cache.ErrNotFound) {
				return db, err == nil, nil
			}
			db.close()
		}
		if !errors.Is(err, errDamaged) {
			return nil, false, err
		}
		if err := r.quarantine(err); err != nil {
			return nil, false, err
		}
	}
	return nil, false, err
}

// quarantine moves a damaged database out of the way.
func (r *records) quarantine(cause error) error {
	r.rebuilt.Store(true)
	r.opts.OnRecordsError(cause)
	damaged := filepath.Join(filepath.Dir(r.path), damagedDatabase) + time.Now().UTC().Format("20060102T150405.000000000Z")
	err := r.opts.Files.Rename(r.path, damaged)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	r.opts.Log.Warn("the database of records was damaged; it was moved out of the way and created again",
		"cause", cause, "aside", damaged)
	defer r.opts.aside.count()
	return r.trimQuarantine()
}

// trimQuarantine removes the oldest damaged databases if there are too many.
func (r *records) trimQuarantine() error {
	folder := filepath.Dir(r.path)
	entries, err := r.opts.Files.ReadDir(folder) // sorted by name, which contains the time
	if err != nil {
		return err
	}
	entries = slices.DeleteFunc(entries, func(entry fs.DirEntry) bool {
		return !strings.HasPrefix(entry.Name(), damagedDatabase)
	})
	for len(entries) > maxDamagedDatabases {
		// On some systems a file that this process has mapped can't be removed:
		// the next call tries again.
		_ = r.opts.Files.Remove(filepath.Join(folder, entries[0].Name()))
		entries = entries[1:]
	}
	return nil
}

// replay restores the records of the journal into a new database and returns
// it. If that cannot be written, it is removed, because it has a part of them,
// and replay returns the records instead. It also reports whether the whole
// journal could be read.
func (r *records) replay(db *database, damaged bool) (_ *database, live map[recordName][]byte, readable bool) {
	var restored, lines int
	var err error
	if db != nil {
		restore := restoring{db: db, faults: r.opts.faults}
		lines, err = restore.run(r.opts.Files, r.journal.path)
		restored = restore.count
	}
	if isNotOfTheJournal(err) {
		r.opts.Log.Error("the records can't be restored to the disk for now; they are kept in memory", "error", err)
		r.opts.OnRecordsError(err)
		_ = errors.Join(db.close(), r.opts.Files.Remove(r.path)) // what is left of it is not complete, and so is restored again
		db = nil
	}
	if db == nil {
		live, lines, err = readJournal(r.opts.Files, r.journal.path)
		restored = len(live)
	}
	if err != nil {
		r.opts.Log.Error("the journal of records can't be read to its end", "error", err)
		r.opts.OnRecordsError(err)
	}
	if restored > 0 || damaged {
		r.rebuilt.Store(true)
		r.opts.Log.Warn("records were restored from the journal", "changes", restored, "damaged_lines", lines)
	}
	return db, live, err == nil
}
