package disk

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/disk/files"
	"github.com/entrepot/entrepot/cache/disk/files/filestest"
)

// A folder on a disk without room is opened, and used as soon as there is some.
func TestAFirstStartOnAFullDisk(t *testing.T) {
	for name, why := range map[string]error{"no space": syscall.ENOSPC, "a quota": syscall.EDQUOT} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, lockFile), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			disk := filestest.Over(OS())
			disk.Fail(filestest.Changes, why)
			full := &noFolders{System: disk, why: why}
			c, err := Open(dir, Options{Files: full})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			content := []byte("content")
			want := cache.Descriptor{Digest: digest.FromBytes(content), Size: int64(len(content))}
			if _, err := c.Blobs().Create(t.Context(), want); !errors.Is(err, cache.ErrFull) {
				t.Fatalf("without room: %v", err)
			}
			if _, err := c.Blobs().Open(t.Context(), want.Digest); !errors.Is(err, cache.ErrNotFound) {
				t.Errorf("opened: %v", err)
			}
			if err := c.Blobs().Walk(t.Context(), func(cache.Digest, int64) bool { return true }); err != nil {
				t.Errorf("walked: %v", err)
			}
			disk.Mend()
			full.why = nil
			draft, err := c.Blobs().Create(t.Context(), want)
			if err != nil {
				t.Fatal(err)
			}
			defer draft.Close()
			if _, err := draft.Write(content); err != nil {
				t.Fatal(err)
			}
			if err := draft.Commit(); err != nil {
				t.Fatal(err)
			}
			c.Records().Put("bucket", "key", []byte("value"))
			if err := c.Records().Flush(t.Context()); err != nil {
				t.Errorf("records: %v", err)
			}
			for _, name := range []string{formatFile, "records.db"} {
				if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// noFolders is a file system that has no room for a folder.
type noFolders struct {
	files.System
	why error
}

func (s *noFolders) Mkdir(path string) error {
	if s.why != nil {
		return &os.PathError{Op: "mkdir", Path: path, Err: s.why}
	}
	return s.System.Mkdir(path)
}

// A file system that tells nothing of its room is not full.
func TestAFileSystemThatTellsNothingIsNotFull(t *testing.T) {
	disk := filestest.Over(OS())
	disk.SetSpace(func(files.Space) files.Space { return files.Space{} })
	c, err := Open(t.TempDir(), Options{Files: disk, MinFree: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	content := []byte("content")
	draft, err := c.Blobs().Create(t.Context(), cache.Descriptor{Digest: digest.FromBytes(content), Size: int64(len(content))})
	if err != nil {
		t.Fatal(err)
	}
	defer draft.Close()
	if err := draft.Reserve(); err != nil {
		t.Error(err)
	}
	disk.SetSpace(func(of files.Space) files.Space { of.FreeBytes = 0; return of })
	if _, err := c.Blobs().Create(t.Context(), cache.Descriptor{Digest: digest.FromString("other"), Size: 5}); !errors.Is(err, cache.ErrFull) || cache.BoundOf(err) != cache.DiskSpace {
		t.Errorf("a full one: %v", err)
	}
}

func TestWhatIsFullNamesTheBound(t *testing.T) {
	for why, want := range map[error]cache.Bound{syscall.ENOSPC: cache.DiskSpace, syscall.EDQUOT: cache.Quota, syscall.EFBIG: cache.FileSize} {
		disk := filestest.Over(OS())
		c, err := Open(t.TempDir(), Options{Files: disk})
		if err != nil {
			t.Fatal(err)
		}
		disk.Fail(filestest.Creates, why)
		if _, err := c.Blobs().Create(t.Context(), cache.Descriptor{Digest: digest.FromString("x"), Size: 1}); !errors.Is(err, cache.ErrFull) || cache.BoundOf(err) != want {
			t.Errorf("%v: %v", why, err)
		}
		disk.Mend()
		c.Close()
	}
}

// A file system without locks is refused with what to do about it.
func TestAFolderThatCannotBeLockedNamesTheWayOut(t *testing.T) {
	err := unlockable("/nfs/cache", &os.PathError{Op: "flock", Path: "/nfs/cache/lock", Err: syscall.ENOLCK})
	wantMessage(t, err, "/nfs/cache", "no locks", "nolock", "local_lock=flock", "local disk")
	if !errors.Is(err, syscall.ENOLCK) {
		t.Errorf("%v hides the cause", err)
	}
}
