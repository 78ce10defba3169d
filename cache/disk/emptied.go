package disk

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"

	"go.etcd.io/bbolt"

	"github.com/entrepot/entrepot/cache/disk/files"
)

// A folder that somebody empties or removes while it is in use, as an
// administrator or systemd-tmpfiles does, is made again: the folders in it when
// something can't be created there, the lock with them, and the records, which
// are still open, when the next ones are written.

// folder is the cache folder, which is locked.
type folder struct {
	dir   string
	files files.System
	log   *slog.Logger

	mu   sync.Mutex
	lock files.File
}

// restore makes again what is missing of the folder, and locks it. It reports
// whether anything was.
func (f *folder) restore() (restored bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	missing := f.missing()
	if len(missing) == 0 {
		return false, nil
	}
	if err := f.files.MkdirAll(f.dir); err != nil {
		return false, fmt.Errorf("make the cache folder again: %w", err)
	}
	if f.isMissing(lockFile) {
		lock, err := lockFolder(f.files, f.dir)
		if err != nil {
			return false, err
		}
		f.lock.OS().Close()
		f.lock = lock
	}
	if err := prepareFolder(f.files, f.dir, f.log); err != nil {
		return false, err
	}
	f.log.Warn("the cache folder was emptied while it was in use; it was made again, and what is pulled is kept again",
		"folder", f.dir, "missing", missing)
	return true, nil
}

func (f *folder) missing() (names []string) {
	for _, name := range []string{lockFile, formatFile, "blobs", "drafts"} {
		if f.isMissing(name) {
			names = append(names, name)
		}
	}
	return names
}

func (f *folder) isMissing(name string) bool {
	_, err := f.files.Lstat(filepath.Join(f.dir, name))
	return errors.Is(err, fs.ErrNotExist)
}

func (f *folder) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lock.OS().Close()
}

// restoring calls do, and once more if that found no folder and the folder could
// be made again.
func (b *blobs) restoring(do func() error) error {
	err := do()
	if !errors.Is(err, fs.ErrNotExist) || b.folder == nil {
		return err
	}
	restored, restoreErr := b.folder.restore()
	if restoreErr != nil {
		return errors.Join(err, restoreErr)
	}
	if !restored {
		return err
	}
	return do()
}

// restore writes the records again if their files were removed. Of the database
// they are still there, because it is open. It is called by the goroutine that
// flushes.
func (r *records) restore(db *database) (*database, error) {
	if r.isRemoved(r.path) {
		if _, err := r.opts.folder.restore(); err != nil {
			return db, err
		}
		fresh, err := r.copyDatabase(db)
		if err != nil {
			return db, fmt.Errorf("write the records again: %w", err)
		}
		r.opts.Log.Warn("the database of records was removed while it was in use; it was written again", "file", r.path)
		db = fresh
	}
	if r.journal.file != nil && r.isRemoved(r.journal.path) {
		r.journal.file.Close()
		r.journal.file = nil
		if err := r.journal.open(); err != nil {
			return db, err
		}
		return db, r.journal.rewrite(db)
	}
	return db, nil
}

func (r *records) isRemoved(path string) bool {
	_, err := r.opts.Files.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// copyDatabase writes a copy of a database whose file is gone, and uses it
// instead.
func (r *records) copyDatabase(old *database) (*database, error) {
	r.replaceMu.Lock()
	defer r.replaceMu.Unlock()
	if r.current() != old {
		return r.current(), errDamaged // the next flush goes on with another one
	}
	next := r.path + ".new"
	if err := writeCopy(r.opts.Files, next, old); err != nil {
		_ = r.opts.Files.Remove(next)
		return nil, err
	}
	fresh, err := r.install(next)
	if err != nil {
		return nil, err
	}
	old.abandon() // who reads it now turns to the other one
	return fresh, nil
}

// install uses a database that was written under another name. r.replaceMu is
// held.
func (r *records) install(next string) (*database, error) {
	if err := r.opts.Files.Rename(next, r.path); err != nil {
		return nil, err
	}
	if err := r.opts.Files.SyncFolder(filepath.Dir(r.path)); err != nil {
		return nil, err
	}
	fresh, err := openDatabase(r.opts.Files, r.opts.places, r.path)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.db = fresh
	r.mu.Unlock()
	return fresh, nil
}

func writeCopy(system files.System, path string, db *database) error {
	file, err := system.Open(path, openNew)
	if err != nil {
		return err
	}
	err = db.view(func(tx *bbolt.Tx) error {
		w := bufio.NewWriterSize(file, 256<<10)
		_, err := tx.WriteTo(w)
		return errors.Join(err, w.Flush())
	})
	return errors.Join(err, file.Sync(), file.Close())
}
