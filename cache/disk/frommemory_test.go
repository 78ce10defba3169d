package disk

import (
	"context"
	"errors"
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/disk/files"
)

// asked counts what may ask the disk of those who read published files.
type asked struct {
	files.System
	times, reads atomic.Int64
	dropped      atomic.Bool // the page cache has nothing of them
	unreadable   atomic.Bool
}

type askedFile struct {
	files.File
	of *asked
}

func (a *asked) OpenPublished(path string) (files.File, error) {
	a.times.Add(1)
	file, err := a.System.OpenPublished(path)
	return askedFile{file, a}, err
}

func (a *asked) OpenPublishedFromMemory(path string) (files.File, bool) {
	file, ok := a.System.OpenPublishedFromMemory(path)
	return askedFile{file, a}, ok
}

func (f askedFile) Identify() (files.Identity, error) {
	f.of.times.Add(1)
	return f.File.Identify()
}

func (f askedFile) ReadAt(p []byte, off int64) (int, error) {
	f.of.times.Add(1)
	f.of.reads.Add(1)
	if f.of.unreadable.Load() {
		return 0, syscall.EIO
	}
	return f.File.ReadAt(p, off)
}

func (f askedFile) IsResident(off, n int64) bool {
	return !f.of.dropped.Load() && f.File.IsResident(off, n)
}

// openAndCheck does what is done before a blob is sent. It returns how far the
// checks got.
func openAndCheck(b cache.Blobs, d cache.Digest) (int64, error) {
	file, err := b.Open(context.Background(), d)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	return checkAll(file)
}

// TestAHotBlobAsksTheDiskForNothing: what may wait for the disk is handed to
// another goroutine, so that a client can leave it. That costs as much as all the
// rest of a small blob.
func TestAHotBlobAsksTheDiskForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		system, dir := &asked{System: OS()}, t.TempDir()
		c := open(t, dir, Options{Files: system, VerifyEvery: time.Hour})
		d := publish(t, c.blobs, "content", large)
		want := func(when string, some bool) {
			t.Helper()
			before := system.times.Load()
			if n, err := openAndCheck(c.Blobs(), d); n != large || err != nil {
				t.Errorf("%s, the checks got to %d of %d: %v", when, n, large, err)
			}
			if n := system.times.Load() - before; n > 0 != some {
				t.Errorf("%s, the disk may have been asked %d times", when, n)
			}
		}
		want("at first", true)
		want("when all is known", !OS().OpensFromMemory(dir))
		time.Sleep(time.Hour)
		want("when it is to be verified again", true)
		want("after that", !OS().OpensFromMemory(dir))
	})
}

// TestWhatThePageCacheHasDroppedIsReadBeforeItIsSent: all is checked, but the
// kernel would wait for the disk while it sends, and nobody can leave that. So it
// is read first, each time, by a goroutine that a client can leave.
func TestWhatThePageCacheHasDroppedIsReadBeforeItIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		system := &asked{System: OS()}
		c := open(t, t.TempDir(), Options{Files: system, VerifyEvery: time.Hour})
		d := publish(t, c.blobs, "content", large)
		want := func(when string, reads int64) {
			t.Helper()
			before := system.reads.Load()
			if n, err := openAndCheck(c.Blobs(), d); n != large || err != nil {
				t.Errorf("%s, the checks got to %d of %d: %v", when, n, large, err)
			}
			if n := system.reads.Load() - before; n != reads {
				t.Errorf("%s, %d pieces were read, want %d", when, n, reads)
			}
		}
		want("at first", largePieces)
		want("when it is checked", 0)
		system.dropped.Store(true)
		want("a moment later", 0) // what was just sent is taken to be there
		time.Sleep(residentFor)
		want("when it is dropped", largePieces)
		want("when it is still dropped", largePieces)
		system.unreadable.Store(true)
		if n, err := openAndCheck(c.Blobs(), d); n != 0 || !errors.Is(err, cache.ErrUnreadable) {
			t.Errorf("what can't be read: the checks got to %d, %v", n, err)
		}
		system.dropped.Store(false)
		system.unreadable.Store(false)
		want("when it is back", 0)
	})
}

func TestWhatIsKnownOfAFileIsNotTakenForThatOfAnother(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"shorter": func(path string) error { return os.Truncate(path, large-1) },
		"removed": os.Remove,
		"a link": func(path string) error {
			return errors.Join(os.Rename(path, path+".old"), os.Symlink(path+".old", path))
		},
		"damaged": func(path string) error { return damage(path, os.O_WRONLY) },
		"another": func(path string) error { return errors.Join(os.Remove(path), damage(path, os.O_WRONLY|os.O_CREATE)) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := open(t, t.TempDir(), Options{VerifyEvery: time.Hour})
				d := publish(t, c.blobs, "content", large)
				for range 2 {
					if n, err := openAndCheck(c.Blobs(), d); n != large || err != nil {
						t.Fatalf("the checks got to %d: %v", n, err)
					}
				}
				path, _ := c.blobs.pathOf(d)
				if err := change(path); err != nil {
					t.Fatal(err)
				}
				n, err := openAndCheck(c.Blobs(), d)
				if n != 0 || !errors.Is(err, cache.ErrNotFound) && !errors.Is(err, cache.ErrMismatch) {
					t.Errorf("the checks got to %d of %d: %v", n, large, err)
				}
			})
		})
	}
}

// damage overwrites the first byte of a file, and leaves its size.
func damage(path string, flag int) error {
	file, err := os.OpenFile(path, flag, 0o600)
	if err != nil {
		return err
	}
	_, err = file.WriteAt([]byte("X"), 0)
	if size, _ := file.Seek(0, io.SeekEnd); size < large && err == nil {
		err = file.Truncate(large)
	}
	return errors.Join(err, file.Close())
}
