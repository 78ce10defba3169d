package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/cachetest"
	"github.com/entrepot/entrepot/cache/disk/files/filestest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// A write transaction may be stuck in a database that broke under a
		// reader, and is abandoned with it. One that is stuck in a sound
		// database still shows, by the flushing goroutine that waits for it.
		goleak.IgnoreAnyFunction("github.com/entrepot/entrepot/cache/disk.(*database).update.func1"))
}

func TestCache(t *testing.T) {
	cachetest.Suite(t, func(t *testing.T) (cache.Blobs, cache.Records) {
		c := open(t, t.TempDir(), Options{})
		return c.Blobs(), c.Records()
	})
}

func TestCacheOverAnotherFileSystem(t *testing.T) {
	cachetest.Suite(t, func(t *testing.T) (cache.Blobs, cache.Records) {
		c := open(t, t.TempDir(), Options{Files: filestest.Over(OS())})
		return c.Blobs(), c.Records()
	})
}

func TestCacheWithAJournal(t *testing.T) {
	cachetest.Records(t, func(t *testing.T) cache.Records {
		return open(t, t.TempDir(), Options{Journal: []cache.Bucket{"a", "b"}}).Records()
	})
}

func TestCacheDamage(t *testing.T) {
	for name, every := range map[string]time.Duration{"checked each time": 0, "checked each hour": time.Hour} {
		t.Run(name, func(t *testing.T) {
			cachetest.Damage(t, func(t *testing.T) (cache.Blobs, func(cache.Digest)) {
				c := open(t, t.TempDir(), Options{VerifyEvery: every})
				return c.Blobs(), func(d cache.Digest) { flip(t, c.blobs, d, -1) }
			})
		})
	}
}

// flip turns a bit over in content that is kept, at an offset, or in the middle
// where that is negative.
func flip(t *testing.T, b *blobs, d cache.Digest, off int64) {
	t.Helper()
	path, _ := b.pathOf(d)
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if off < 0 {
		off = info.Size() / 2
	}
	turned := make([]byte, 1)
	if _, err := file.ReadAt(turned, off); err != nil {
		t.Fatal(err)
	}
	turned[0] ^= 1
	if _, err := file.WriteAt(turned, off); err != nil {
		t.Fatal(err)
	}
}

func TestCacheFull(t *testing.T) {
	cachetest.Full(t, func(t *testing.T, room int64) cache.Blobs {
		dir := t.TempDir()
		return open(t, dir, Options{faults: bounded(t, dir, room)}).Blobs()
	})
}

// bounded behaves like a file system with room for so many bytes of content.
func bounded(t *testing.T, dir string, room int64) faults {
	free := func() (int64, error) { return room - used(t, dir), nil }
	return faults{
		free: free,
		write: func(n int) (int, error) {
			left, _ := free()
			if int64(n) <= left {
				return n, nil
			}
			return int(left), syscall.ENOSPC
		},
	}
}

// used is how many bytes of content and drafts there are, without their maps.
func used(t *testing.T, dir string) (bytes int64) {
	t.Helper()
	for _, folder := range []string{"blobs", "drafts"} {
		err := filepath.WalkDir(filepath.Join(dir, folder), func(_ string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || filepath.Ext(entry.Name()) == mapSuffix {
				return err
			}
			info, err := entry.Info()
			if err == nil {
				bytes += info.Size()
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	return bytes
}

// open opens a cache until the end of the test.
func open(t *testing.T, dir string, opts Options) *Cache {
	t.Helper()
	c, err := Open(dir, opts)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return c
}
