package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/entrepot/entrepot/cache"
)

const (
	formatFile = "format"
	lockFile   = "lock"
	// format is the version of the layout that this package reads and writes.
	format = "1"
)

// own makes dir a cache folder that belongs to this process until the file it
// returns is closed.
func own(dir string, log *slog.Logger) (*os.File, error) {
	// Others have no business in it: what is cached may be private.
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("the cache folder %s can't be made: %w; choose another, or make it and give it to this user", dir, reason(err))
	}
	lock, err := lockFolder(dir)
	if err != nil {
		return nil, err
	}
	if err := prepare(dir, log); err != nil {
		lock.Close()
		return nil, err
	}
	return lock, nil
}

// prepare makes a folder that is locked ready for use.
func prepare(dir string, log *slog.Logger) error {
	if err := checkFormat(dir, log); err != nil {
		return err
	}
	for _, name := range []string{"blobs", "drafts"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("the cache folder %s can't be written: %w; choose another, or give it to this user", dir, reason(err))
		}
	}
	return dropDrafts(filepath.Join(dir, "drafts"), log)
}

// lockFolder takes the lock of a cache folder. The kernel gives it back when
// the process ends, however it ends.
func lockFolder(dir string) (*os.File, error) {
	lock, err := openShared(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, fmt.Errorf("the cache folder %s can't be written: %w; choose another, or give it to this user", dir, reason(err))
	}
	locked, err := tryLock(lock)
	if err == nil && !locked {
		owner, _ := io.ReadAll(io.LimitReader(lock, 20)) // for the message only
		lock.Close()
		if owner = bytes.TrimSpace(owner); len(owner) > 0 {
			owner = fmt.Appendf(nil, " (pid %s)", owner)
		}
		return nil, fmt.Errorf("%w: the cache folder %s is in use%s; stop that one, or choose another folder for this one", cache.ErrLocked, dir, owner)
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("lock the cache folder %s: %w", dir, err)
	}
	// Nothing hangs on the pid but the message above, so a full disk is no
	// reason to stop.
	if lock.Truncate(0) == nil {
		_, _ = fmt.Fprintf(lock, "%d\n", os.Getpid())
	}
	return lock, nil
}

// checkFormat refuses a folder that this package would misread: one of a newer
// format, and one that is no cache. A format file that says nothing is as good
// as none: then the folder's own shape tells what it is.
func checkFormat(dir string, log *slog.Logger) error {
	path := filepath.Join(dir, formatFile)
	version, err := readFormat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the cache folder %s can't be read: %w", dir, reason(err))
	}
	switch {
	case version == format:
		return nil
	case newerFormat(version):
		return fmt.Errorf("the cache folder %s has format %.20q, and this entrepot reads format %q; run the entrepot that made it, or choose another folder", dir, version, format)
	}

	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("the cache folder %s can't be read: %w", dir, reason(err))
	}
	used := false
	for _, entry := range entries {
		switch name := entry.Name(); {
		case slices.Contains([]string{lockFile, formatFile, formatFile + ".new", "lost+found"}, name):
		case slices.Contains([]string{"blobs", "drafts", "damaged"}, name), strings.HasPrefix(name, "records."):
			used = true
		default:
			// Its drafts/ would be emptied, and whose they are nobody knows.
			return fmt.Errorf("the folder %s is no cache: it holds %q and no format file that says so; choose an empty folder", dir, name)
		}
	}
	if used {
		log.Warn("the cache folder has lost its format file, or what it said; taken for the current one", "folder", dir, "said", version, "format", format)
	}
	if err := writeDurably(path, []byte(format+"\n")); err != nil {
		return fmt.Errorf("the cache folder %s can't be written: %w", dir, reason(err))
	}
	return nil
}

// readFormat reads what a format file says, as far as it is worth reading.
func readFormat(path string) (string, error) {
	file, err := openShared(path, os.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer file.Close()
	version, err := io.ReadAll(io.LimitReader(file, 64))
	return strings.TrimSpace(string(version)), err
}

// newerFormat says whether version is a number above format. Anything else
// was never written by an entrepot.
func newerFormat(version string) bool {
	for _, c := range version {
		if c < '0' || c > '9' {
			return false
		}
	}
	version = strings.TrimLeft(version, "0")
	return len(version) > len(format) || len(version) == len(format) && version > format
}

// dropDrafts removes what a process that ended early was writing.
func dropDrafts(drafts string, log *slog.Logger) error {
	entries, err := os.ReadDir(drafts)
	if err != nil {
		return fmt.Errorf("drafts of an earlier run: %w", err)
	}
	dropped := 0
	for _, entry := range entries {
		if entry.IsDir() {
			continue // not made here
		}
		if err := os.Remove(filepath.Join(drafts, entry.Name())); err != nil {
			return fmt.Errorf("drafts of an earlier run: %w", err)
		}
		dropped++
	}
	if dropped > 0 {
		log.Info("dropped unfinished downloads of an earlier run", "count", dropped)
	}
	return nil
}

// writeDurably puts a small file in place at once or not at all.
func writeDurably(path string, content []byte) error {
	next, err := openShared(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = next.Write(content)
	if err = errors.Join(err, next.Sync(), next.Close()); err != nil {
		return err
	}
	if err := rename(next.Name(), path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// reason is the cause of a path error, without the path that the sentence
// around it names already.
func reason(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}
