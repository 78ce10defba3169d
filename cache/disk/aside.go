package disk

import (
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/disk/files"
)

const (
	damagedFolder = "damaged"
	// damagedDatabase is how the name begins of a database that was set aside.
	damagedDatabase = "records.db.damaged-"
)

// aside are the files that were set aside because they are damaged.
type aside struct {
	dir   string
	files files.System
	bytes atomic.Int64
}

func newAside(dir string, opts Options) *aside {
	a := &aside{dir: dir, files: opts.Files}
	a.count()
	return a
}

// count counts the bytes anew. It is called after every change.
func (a *aside) count() {
	var bytes int64
	for _, file := range a.all() {
		bytes += file.Bytes
	}
	a.bytes.Store(bytes)
}

func (a *aside) all() (all []cache.Aside) {
	all = append(a.in("", damagedDatabase), a.in(damagedFolder, "")...)
	slices.SortFunc(all, func(a, b cache.Aside) int { return a.At.Compare(b.At) })
	return all
}

// in are the files in a folder of the cache whose names begin with a prefix. If
// the folder can't be read, there are none: the next count finds them.
func (a *aside) in(folder, prefix string) (all []cache.Aside) {
	entries, _ := readFolder(a.files, filepath.Join(a.dir, folder))
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), prefix) {
			continue
		}
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() {
			all = append(all, cache.Aside{Name: path.Join(folder, entry.Name()), Bytes: info.Size(), At: info.ModTime()})
		}
	}
	return all
}

func (a *aside) drop(name string) error {
	if !slices.ContainsFunc(a.all(), func(file cache.Aside) bool { return file.Name == name }) {
		return fmt.Errorf("remove %s from what was set aside: %w", name, fs.ErrNotExist)
	}
	defer a.count()
	if err := a.files.Remove(filepath.Join(a.dir, filepath.FromSlash(name))); err != nil {
		return fmt.Errorf("remove what was set aside: %w", err)
	}
	return nil
}

// RecordBytes returns how many bytes the records take, with their journal.
func (c *Cache) RecordBytes() int64 { return c.records.bytes() }

// AsideBytes returns how many bytes the files have that were set aside because
// they are damaged.
func (c *Cache) AsideBytes() int64 { return c.aside.bytes.Load() }

// Aside returns the files that were set aside, the oldest first.
func (c *Cache) Aside() []cache.Aside { return c.aside.all() }

// DropAside removes a file that was set aside.
func (c *Cache) DropAside(name string) error { return c.aside.drop(name) }
