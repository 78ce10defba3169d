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
	"github.com/entrepot/entrepot/cache/disk/files"
)

const (
	formatFile = "format"
	lockFile   = "lock"
	// format is the version of the layout that this package reads and writes.
	format = "1"
)

// openFolder locks dir as a cache folder until the returned file is closed, and
// creates it if there is none.
func openFolder(system files.System, dir string, log *slog.Logger) (files.File, error) {
	// Other users get no access: what is cached may be private.
	if err := system.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("the cache folder %s can't be created: %w; choose another, or create it and make this user its owner", dir, pathErrorCause(err))
	}
	lock, err := lockFolder(system, dir)
	if err != nil {
		return nil, err
	}
	if err := prepareFolder(system, dir, log); err != nil {
		lock.Close()
		return nil, err
	}
	return lock, nil
}

// prepareFolder prepares a locked folder for use.
func prepareFolder(system files.System, dir string, log *slog.Logger) error {
	if err := checkFormat(system, dir, log); err != nil {
		return err
	}
	for _, name := range []string{"blobs", "drafts"} {
		if err := system.Mkdir(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("the cache folder %s can't be written: %w; choose another, or make this user its owner", dir, pathErrorCause(err))
		}
	}
	return nil
}

// lockFolder locks a cache folder. The kernel releases the lock when the
// process ends, no matter how.
func lockFolder(system files.System, dir string) (files.File, error) {
	lock, err := system.Open(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, fmt.Errorf("the cache folder %s can't be written: %w; choose another, or make this user its owner", dir, pathErrorCause(err))
	}
	locked, err := tryLock(lock.OS())
	if err == nil && !locked {
		owner, _ := io.ReadAll(io.LimitReader(lock, 20)) // for the message only
		lock.Close()
		if owner = bytes.TrimSpace(owner); len(owner) > 0 {
			owner = fmt.Appendf(nil, " (pid %s)", owner)
		}
		return nil, fmt.Errorf("%w: the cache folder %s is in use%s; stop the other entrepot, or choose another folder for this one", cache.ErrLocked, dir, owner)
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("lock the cache folder %s: %w", dir, err)
	}
	// The pid is only for the message above, so failing to write it does not
	// matter.
	if lock.Truncate(0) == nil {
		_, _ = fmt.Fprintf(lock, "%d\n", os.Getpid())
	}
	return lock, nil
}

// checkFormat refuses a folder that this package would misread: one with a
// newer format, and one that is not a cache. A format file without a version is
// ignored: then the folder's contents show what it is.
func checkFormat(system files.System, dir string, log *slog.Logger) error {
	path := filepath.Join(dir, formatFile)
	version, err := readFormat(system, path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the cache folder %s can't be read: %w", dir, pathErrorCause(err))
	}
	switch {
	case version == format:
		return nil
	case newerFormat(version):
		return fmt.Errorf("the cache folder %s has format %.20q, but this entrepot reads format %q; run the entrepot that created it, or choose another folder", dir, version, format)
	}

	entries, err := system.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("the cache folder %s can't be read: %w", dir, pathErrorCause(err))
	}
	used := false
	for _, entry := range entries {
		switch name := entry.Name(); {
		case slices.Contains([]string{lockFile, formatFile, formatFile + ".new", "lost+found"}, name):
		case slices.Contains([]string{"blobs", "drafts", "damaged"}, name), strings.HasPrefix(name, "records."):
			used = true
		default:
			// The folder's drafts/ would be emptied, and it may belong to
			// somebody else.
			return fmt.Errorf("the folder %s is not a cache: it contains %q, but no format file; choose an empty folder", dir, name)
		}
	}
	if used {
		log.Warn("the cache folder has no valid format file; assuming the current format", "folder", dir, "said", version, "format", format)
	}
	if err := writeDurably(system, path, []byte(format+"\n")); err != nil {
		return fmt.Errorf("the cache folder %s can't be written: %w", dir, pathErrorCause(err))
	}
	return nil
}

// readFormat returns the beginning of a format file.
func readFormat(system files.System, path string) (string, error) {
	file, err := system.Open(path, os.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer file.Close()
	version, err := io.ReadAll(io.LimitReader(file, 64))
	return strings.TrimSpace(string(version)), err
}

// newerFormat reports whether version is a number above format. No entrepot
// ever wrote anything but a number.
func newerFormat(version string) bool {
	for _, c := range version {
		if c < '0' || c > '9' {
			return false
		}
	}
	version = strings.TrimLeft(version, "0")
	return len(version) > len(format) || len(version) == len(format) && version > format
}

// openNew are the flags for a file that replaces another one.
const openNew = os.O_WRONLY | os.O_CREATE | os.O_TRUNC

// writeDurably writes a small file atomically.
func writeDurably(system files.System, path string, content []byte) error {
	next, err := system.Open(path+".new", openNew)
	if err != nil {
		return err
	}
	_, err = next.Write(content)
	if err = errors.Join(err, next.Sync(), next.Close()); err == nil {
		err = system.Rename(next.Name(), path)
	}
	if err != nil {
		_ = system.Remove(next.Name())
		return err
	}
	return system.SyncFolder(filepath.Dir(path))
}

// pathErrorCause returns the cause of a path error, without the path, which the
// message around it already names.
func pathErrorCause(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}
