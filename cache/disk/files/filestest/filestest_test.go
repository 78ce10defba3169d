package filestest_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/entrepot/entrepot/cache/disk"
	"github.com/entrepot/entrepot/cache/disk/files"
	"github.com/entrepot/entrepot/cache/disk/files/filestest"
)

// tries are one operation of each kind, on an open file and without one.
func tries(d *filestest.Disk, open files.File, dir string) map[filestest.Operations][]func() error {
	return map[filestest.Operations][]func() error{
		filestest.Reads: {
			func() error { _, err := open.ReadAt(make([]byte, 1), 0); return err },
			func() error { _, err := d.Lstat(open.Name()); return err },
			func() error { _, err := open.Identify(); return err },
		},
		filestest.Creates: {
			func() error { _, err := d.CreateTemp(dir, "created-*"); return err },
			func() error { return d.MkdirAll(filepath.Join(dir, "made")) },
		},
		filestest.Changes: {
			func() error { _, err := open.WriteAt([]byte("x"), 0); return err },
			func() error { return d.Rename(open.Name(), open.Name()) },
		},
		filestest.Syncs:  {open.Sync, func() error { return d.SyncFolder(dir) }},
		filestest.Spaces: {func() error { _, err := d.Space(dir); return err }},
	}
}

func begin(t *testing.T) (*filestest.Disk, files.File, string) {
	t.Helper()
	dir := t.TempDir()
	d := filestest.Over(disk.OS())
	open, err := d.Open(filepath.Join(dir, "file"), os.O_RDWR|os.O_CREATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { open.Close() })
	if _, err := open.Write([]byte("content")); err != nil {
		t.Fatal(err)
	}
	return d, open, dir
}

func TestOnlyWhatIsBrokenFails(t *testing.T) {
	for _, why := range []error{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT, fs.ErrNotExist} {
		d, open, dir := begin(t)
		all := tries(d, open, dir)
		for broken := range all {
			d.Fail(broken, why)
			for kind, some := range all {
				for i, try := range some {
					if err := try(); (kind == broken) != errors.Is(err, why) {
						t.Errorf("%v for %b: the %dth of %b has %v", why, broken, i, kind, err)
					}
				}
			}
			d.Mend()
			for kind, some := range all {
				for i, try := range some {
					if err := try(); err != nil {
						t.Errorf("mended: the %dth of %b has %v", i, kind, err)
					}
				}
			}
		}
	}
}

func TestWhatHangsGoesOnWhenItIsMended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, open, dir := begin(t)
		d.Hang(filestest.All)
		tried, done := 0, make(chan error)
		for _, some := range tries(d, open, dir) {
			for _, try := range some {
				tried++
				go func() { done <- try() }()
			}
		}
		synctest.Wait()
		if d.Waiting() != tried {
			t.Errorf("%d of %d hang", d.Waiting(), tried)
		}
		d.Mend()
		for range tried {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}

func TestRoomIsTold(t *testing.T) {
	d, _, dir := begin(t)
	d.SetSpace(func(files.Space) files.Space { return files.Space{} })
	if of, err := d.Space(dir); of != (files.Space{}) || err != nil {
		t.Errorf("Space = %+v, %v, want zeros", of, err)
	}
	d.NoInodes()
	if of, err := d.Space(dir); of.FreeInodes != 0 || of.FreeBytes == 0 || err != nil {
		t.Errorf("Space = %+v, %v, want bytes and no inodes", of, err)
	}
	if _, err := d.CreateTemp(dir, "*"); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("CreateTemp: %v", err)
	}
}
