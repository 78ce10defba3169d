package disk

import (
	"errors"
	"io/fs"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/disk/files"
	"github.com/entrepot/entrepot/cache/disk/files/filestest"
	"github.com/entrepot/entrepot/limits/panics"
)

// caught counts panics that are caught, until the test ends.
func caught(t *testing.T) *atomic.Int64 {
	t.Helper()
	var n atomic.Int64
	panics.Handle(func(string, any, []byte) { n.Add(1) })
	t.Cleanup(func() { panics.Handle(nil) })
	return &n
}

// broken is a file system whose code panics when it is asked for a size.
type broken struct {
	files.System
	now atomic.Bool
}

func (b *broken) Lstat(path string) (fs.FileInfo, error) {
	if b.now.Load() {
		panic("broken")
	}
	return b.System.Lstat(path)
}

// TestAPanicAtTheDiskCostsItsTask (13.1): each goroutine that works at the disk
// is rid of it, and all goes on.
func TestAPanicAtTheDiskCostsItsTask(t *testing.T) {
	for name, do := range map[string]func(t *testing.T, told *atomic.Int64){
		"an operation": func(t *testing.T, _ *atomic.Int64) {
			system := &broken{System: OS()}
			c := open(t, t.TempDir(), Options{Files: system})
			d := publish(t, c.blobs, "content", large)
			system.now.Store(true)
			if _, err := c.Blobs().Stat(t.Context(), d); !errors.Is(err, panics.ErrPanic) {
				t.Errorf("Stat: %v", err)
			}
			system.now.Store(false)
			if _, err := c.Blobs().Stat(t.Context(), d); err != nil {
				t.Errorf("after that, Stat: %v", err)
			}
		},
		"what waits until the disk is up": func(t *testing.T, _ *atomic.Int64) {
			c := open(t, t.TempDir(), Options{})
			c.places.later(func() { panic("broken") })
		},
		"a file that is closed later": func(t *testing.T, _ *atomic.Int64) {
			c := open(t, t.TempDir(), Options{Places: Places{Reads: 1, Writes: 1}})
			c.places.reads <- struct{}{}
			if err := c.places.closing(func() error { panic("broken") }); err != nil {
				t.Errorf("closing: %v", err)
			}
			<-c.places.reads
			synctest.Wait()
			if len(c.places.reads) > 0 {
				t.Error("its place is not free again")
			}
		},
		"looking whether the disk is up": func(t *testing.T, told *atomic.Int64) {
			h := openHangable(t, Options{})
			probe := h.places.probe
			h.places.probe = func() error {
				if told.Load() == 0 {
					panic("broken")
				}
				return probe()
			}
			h.broken.Hang(filestest.All)
			if _, err := h.Blobs().Stat(t.Context(), h.d); !errors.Is(err, cache.ErrDown) {
				t.Errorf("Stat: %v", err)
			}
			h.broken.Mend()
			time.Sleep(time.Minute)
			if h.Outage() != nil {
				t.Error("the disk is still taken for down")
			}
		},
		"writing records": func(t *testing.T, told *atomic.Int64) {
			var now atomic.Bool
			dir := t.TempDir()
			c, err := Open(dir, Options{Journal: []cache.Bucket{"a"}, faults: faults{records: func() error {
				if now.Load() {
					panic("broken")
				}
				return nil
			}}})
			if err != nil {
				t.Fatal(err)
			}
			now.Store(true)
			c.Records().Put("a", "key", []byte("value"))
			if err := c.Records().Flush(t.Context()); !errors.Is(err, panics.ErrPanic) {
				t.Errorf("Flush: %v", err)
			}
			for range 30 {
				c.Records().Put("b", "key", nil)
				time.Sleep(time.Second)
			}
			if n := told.Load(); n != 1 {
				t.Errorf("in half a minute it was tried %d times", n)
			}
			now.Store(false)
			time.Sleep(time.Minute)
			if behind := c.Behind(); behind > 0 {
				t.Errorf("they are not written for %s", behind)
			}
			now.Store(true)
			c.Records().Put("a", "key", []byte("another"))
			if err := c.Close(); !errors.Is(err, panics.ErrPanic) {
				t.Errorf("Close: %v", err)
			}
			c = open(t, dir, Options{Journal: []cache.Bucket{"a"}})
			if value, err := c.Records().Get("a", "key"); string(value) != "value" || err != nil {
				t.Errorf("after that there is %q, %v", value, err)
			}
		},
		"the end of writing records": func(t *testing.T, _ *atomic.Int64) {
			dir := t.TempDir()
			c, err := Open(dir, Options{})
			if err != nil {
				t.Fatal(err)
			}
			c.records.journal = nil
			if err := c.Close(); !errors.Is(err, panics.ErrPanic) {
				t.Errorf("Close: %v", err)
			}
			open(t, dir, Options{}) // it is not locked
		},
		"closing the cache": func(t *testing.T, _ *atomic.Int64) {
			dir := t.TempDir()
			c, err := Open(dir, Options{})
			if err != nil {
				t.Fatal(err)
			}
			folder := c.folder
			c.folder = nil
			if err := c.Close(); !errors.Is(err, panics.ErrPanic) {
				t.Errorf("Close: %v", err)
			}
			if err := folder.close(); err != nil {
				t.Error(err)
			}
			open(t, dir, Options{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				told := caught(t)
				do(t, told)
				synctest.Wait()
				if told.Load() == 0 {
					t.Error("no panic was told of")
				}
			})
		})
	}
}
