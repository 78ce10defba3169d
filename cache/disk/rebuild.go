package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"github.com/entrepot/entrepot/cache"
)

// keptAside is how many damaged databases stay for whoever wants to know.
const keptAside = 3

// A database is complete when it holds all that the journal held when it was
// begun. One without this mark is new, or the process ended before all was
// had back: either way the journal is read.
const (
	bucketState = cache.Bucket("\x00state")
	keyComplete = "complete"
)

func markComplete(tx *bbolt.Tx) error {
	return apply(tx, moving{recordName{bucketState, keyComplete}, &waiting{}})
}

// start opens the database for the first time. Only what the user must mend
// is an error: a database that is damaged, or has no room to begin, is not.
func (r *records) start() error {
	err := r.replace(nil, nil)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, cache.ErrLocked):
		return fmt.Errorf("%w; find out who holds it, and stop that", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the records of the cache can't be opened: %w; give the whole cache folder to this user", err)
	}
	r.opts.Log.Error("the records can't be kept on disk for now; they are kept in memory and tried again", "error", err)
	r.opts.OnRecordsError(err)
	return nil
}

func (r *records) current() *database {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.db
}

// replace puts another database in the place of old, which cause says is
// damaged, or in the place of none. It does nothing where someone has done so
// since. Until it is done, others who find the damage wait for it.
func (r *records) replace(old *database, cause error) error {
	r.opening.Lock()
	defer r.opening.Unlock()
	if r.finished {
		return errRecordsClosed
	}
	if r.current() != old {
		return nil
	}
	if old != nil {
		old.close()
		if err := r.setAside(cause); err != nil {
			r.opts.Log.Error("the damaged records can't be set aside", "error", err)
		}
	}

	db, complete, err := r.openAnew()
	var live map[recordName][]byte
	mendable := true
	replay := !complete && !(old == nil && r.isReplaying())
	if replay {
		live, mendable = r.replay(old != nil)
	}
	if db != nil && !complete && len(live) == 0 && mendable && replay {
		// Nothing to be had back: as good as complete.
		complete = db.update(markComplete) == nil
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	r.db = db
	if replay {
		r.replaying, r.mendable = !complete, mendable
		for name, value := range live {
			if r.waiting[name.bucket][name.key] == nil {
				r.put(name.bucket, name.key, &waiting{value: value, journaled: true})
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

// openAnew opens the database, a fresh one where the one that is there is
// damaged.
func (r *records) openAnew() (db *database, complete bool, err error) {
	for range 2 {
		db, err = openDatabase(r.path)
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
		if err := r.setAside(err); err != nil {
			return nil, false, err
		}
	}
	return nil, false, err
}

// setAside takes a damaged database out of the way.
func (r *records) setAside(cause error) error {
	r.rebuilt.Store(true)
	r.opts.OnRecordsError(cause)
	aside := r.path + ".damaged-" + time.Now().UTC().Format("20060102T150405.000000000Z")
	err := rename(r.path, aside)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	r.opts.Log.Warn("the database of records was damaged; it is set aside and begun anew",
		"cause", cause, "aside", aside)

	return r.boundAside()
}

// boundAside removes the oldest of the damaged databases, as far as they are
// too many.
func (r *records) boundAside() error {
	folder, name := filepath.Split(r.path)
	entries, err := os.ReadDir(folder) // in the order of names, and so of times
	if err != nil {
		return err
	}
	entries = slices.DeleteFunc(entries, func(entry fs.DirEntry) bool {
		return !strings.HasPrefix(entry.Name(), name+".damaged-")
	})
	for len(entries) > keptAside {
		// One that this process has still mapped can't be removed everywhere:
		// the next to be set aside tries again.
		os.Remove(filepath.Join(folder, entries[0].Name()))
		entries = entries[1:]
	}
	return nil
}

// replay reads what is to be had back from the journal. It says whether that
// is all there was.
func (r *records) replay(damaged bool) (live map[recordName][]byte, whole bool) {
	live, lines, err := readJournal(r.journal.path)
	if err != nil {
		r.opts.Log.Error("the journal of records can't be read to its end", "error", err)
		r.opts.OnRecordsError(err)
	}
	if len(live) > 0 || damaged {
		r.rebuilt.Store(true)
		r.opts.Log.Warn("records were had back from the journal", "records", len(live), "damaged_lines", lines)
	}
	return live, err == nil
}
