package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
)

func TestDamagedContent(t *testing.T) {
	for _, store := range []struct {
		name       string
		attributes bool
	}{
		{"with sizes in attributes", true},
		{"with sizes in records", false},
	} {
		damages := []struct {
			name   string
			damage func(path string) error
		}{
			{"cut short", func(path string) error { return os.Truncate(path, 999) }},
			{"emptied", func(path string) error { return os.Truncate(path, 0) }},
			{"grown", func(path string) error { return os.Truncate(path, 1001) }},
		}
		for _, c := range damages {
			for _, notice := range []string{"Open", "Stat"} {
				t.Run(fmt.Sprintf("%s, a file %s is quarantined by %s and can be published again", store.name, c.name, notice), func(t *testing.T) {
					dir := t.TempDir()
					var log bytes.Buffer
					b := open(t, dir, Options{Log: slog.New(slog.NewTextHandler(&log, nil))}).blobs
					if !b.sizes.attributes {
						t.Fatal("the file system of the test keeps no attributes")
					}
					b.sizes.attributes = store.attributes
					d := publish(t, b, "good", 1000)
					path, _ := b.pathOf(d)
					if err := c.damage(path); err != nil {
						t.Fatal(err)
					}

					var err error
					if notice == "Open" {
						_, err = b.Open(t.Context(), d)
					} else {
						_, err = b.Stat(t.Context(), d)
					}
					if !errors.Is(err, cache.ErrNotFound) {
						t.Errorf("%s of damaged content: %v, want ErrNotFound", notice, err)
					}
					if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
						t.Errorf("the damaged file is still in its place: %v", err)
					}
					if _, err := os.Stat(filepath.Join(dir, "damaged", d.Encoded())); err != nil {
						t.Errorf("the damaged file was not quarantined: %v", err)
					}
					if !strings.Contains(log.String(), d.String()) {
						t.Errorf("nothing was reported; the log says %q", log.String())
					}

					if again := publish(t, b, "good", 1000); again != d {
						t.Fatal("other content")
					}
					if size, err := b.Stat(t.Context(), d); size != 1000 || err != nil {
						t.Errorf("Stat after it was published again = %d, %v", size, err)
					}
				})
			}
		}
	}

	t.Run("a file that was touched, or lost its attributes, is not damaged", func(t *testing.T) {
		b := open(t, t.TempDir(), Options{}).blobs
		d := publish(t, b, "good", 1000)
		path, _ := b.pathOf(d)
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		// As a backup that knows no attributes restores it.
		if err := errors.Join(os.Remove(path), os.WriteFile(path, content, 0o644)); err != nil {
			t.Fatal(err)
		}
		if size, err := b.Stat(t.Context(), d); size != 1000 || err != nil {
			t.Errorf("Stat = %d, %v, want 1000", size, err)
		}
	})

	t.Run("what was published again meanwhile is not quarantined", func(t *testing.T) {
		b := open(t, t.TempDir(), Options{}).blobs
		d := publish(t, b, "good", 1000)
		path, _ := b.pathOf(d)
		before, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		publish(t, b, "good", 1000)
		b.quarantine(d, path, before)
		if size, err := b.Stat(t.Context(), d); size != 1000 || err != nil {
			t.Errorf("Stat = %d, %v, want 1000", size, err)
		}
	})

	t.Run("only the newest of what was quarantined stays", func(t *testing.T) {
		dir := t.TempDir()
		b := open(t, dir, Options{}).blobs
		var last cache.Digest
		for i := range maxQuarantineFiles + 3 {
			last = publish(t, b, fmt.Sprint(i), 10)
			path, _ := b.pathOf(last)
			if err := os.Truncate(path, 5); err != nil {
				t.Fatal(err)
			}
			b.Stat(t.Context(), last)
		}
		if kept := list(t, filepath.Join(dir, "damaged")); len(kept) != maxQuarantineFiles {
			t.Errorf("%d files are in quarantine, want %d", len(kept), maxQuarantineFiles)
		}
		if _, err := os.Stat(filepath.Join(dir, "damaged", last.Encoded())); err != nil {
			t.Errorf("the newest is not among them: %v", err)
		}
		big := publish(t, b, "big", 10)
		path, _ := b.pathOf(big)
		if err := os.Truncate(path, maxQuarantineBytes+1); err != nil {
			t.Fatal(err)
		}
		b.Stat(t.Context(), big)
		if kept := list(t, filepath.Join(dir, "damaged")); len(kept) != 0 {
			t.Errorf("%q are in quarantine with a file over the bound before them", kept)
		}
	})
}

func TestStrangersInTheTree(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir, Options{}).blobs
	d := publish(t, b, "content", 100)
	path, _ := b.pathOf(d)
	other := digest.FromString("a link")
	link, _ := b.pathOf(other)
	folder := digest.FromString("a folder")
	asFolder, _ := b.pathOf(folder)
	hex := digest.FromString("in the wrong folder").Encoded()
	wrong := filepath.Join(b.root, "sha256", "zz")
	err := errors.Join(
		os.WriteFile(filepath.Join(b.root, "README"), nil, 0o600),
		os.WriteFile(filepath.Join(b.root, "sha256", "file"), nil, 0o600),
		os.WriteFile(path+".bak", nil, 0o600),
		os.MkdirAll(filepath.Join(b.root, "md5", "ab"), 0o700),
		os.WriteFile(filepath.Join(b.root, "md5", "ab", "abcd"), nil, 0o600),
		os.MkdirAll(wrong, 0o700),
		os.WriteFile(filepath.Join(wrong, hex), nil, 0o600),
		os.MkdirAll(filepath.Dir(link), 0o700),
		os.Symlink(path, link),
		os.MkdirAll(asFolder, 0o700),
	)
	if err != nil {
		t.Fatal(err)
	}
	var seen []cache.Digest
	err = b.Walk(t.Context(), func(d cache.Digest, _ int64) bool {
		seen = append(seen, d)
		return true
	})
	if err != nil || len(seen) != 1 || seen[0] != d {
		t.Errorf("Walk saw %v, %v, want only %s", seen, err, d)
	}
	for _, none := range []cache.Digest{other, folder} {
		if _, err := b.Open(t.Context(), none); !errors.Is(err, cache.ErrNotFound) {
			t.Errorf("Open of what is no file: %v, want ErrNotFound", err)
		}
		if _, err := b.Stat(t.Context(), none); !errors.Is(err, cache.ErrNotFound) {
			t.Errorf("Stat of what is no file: %v, want ErrNotFound", err)
		}
	}
}

func TestFullDisk(t *testing.T) {
	for _, refusal := range []error{syscall.ENOSPC, syscall.EDQUOT} {
		for _, step := range []string{"sync", "rename"} {
			t.Run(fmt.Sprintf("%v at %s is ErrFull, and the commit can be tried again", refusal, step), func(t *testing.T) {
				dir := t.TempDir()
				c := open(t, dir, Options{})
				refuse := func() error { return &os.PathError{Op: step, Path: "x", Err: refusal} }
				if step == "sync" {
					c.blobs.faults.sync = refuse
				} else {
					c.blobs.faults.rename = refuse
				}
				content := pattern("content", 1000)
				d := digest.FromBytes(content)
				draft := create(t, c.blobs, cache.Descriptor{Digest: d, Size: 1000})
				if _, err := draft.Write(content); err != nil {
					t.Fatal(err)
				}
				if err := draft.Commit(); !errors.Is(err, cache.ErrFull) {
					t.Fatalf("Commit: %v, want ErrFull", err)
				}
				if _, err := c.blobs.Stat(t.Context(), d); !errors.Is(err, cache.ErrNotFound) {
					t.Errorf("Stat after a failed commit: %v, want ErrNotFound", err)
				}
				c.blobs.faults = faults{}
				if err := draft.Commit(); err != nil {
					t.Errorf("Commit with room again: %v", err)
				}
				if _, err := c.blobs.Stat(t.Context(), d); err != nil {
					t.Errorf("Stat: %v", err)
				}
			})
		}
	}

	t.Run("a draft that could not be committed leaves nothing behind", func(t *testing.T) {
		dir := t.TempDir()
		b := open(t, dir, Options{faults: faults{rename: func() error { return syscall.ENOSPC }}}).blobs
		content := pattern("content", 1000)
		draft := create(t, b, cache.Descriptor{Digest: digest.FromBytes(content), Size: 1000})
		if _, err := draft.Write(content); err != nil {
			t.Fatal(err)
		}
		if err := draft.Commit(); err == nil {
			t.Fatal("Commit: no error")
		}
		if err := draft.Close(); err != nil {
			t.Fatal(err)
		}
		if left := used(t, dir); left != 0 {
			t.Errorf("%d bytes are left", left)
		}
	})

	t.Run("room is not promised twice", func(t *testing.T) {
		dir := t.TempDir()
		b := open(t, dir, Options{MinFree: 100, faults: bounded(t, dir, 1100)}).blobs
		first, second, third := descriptor("1", 600), descriptor("2", 400), descriptor("3", 1)
		one := create(t, b, first)
		two, three := create(t, b, second), create(t, b, third)
		reserve(t, one, nil)
		if _, err := one.Write(pattern("1", 600)[:300]); err != nil {
			t.Fatal(err)
		}
		reserve(t, two, nil)
		reserve(t, three, cache.ErrFull)
		reserve(t, one, nil) // it has all that it needs
		if _, err := b.Create(t.Context(), third); !errors.Is(err, cache.ErrFull) {
			t.Errorf("Create beyond what was promised: %v, want ErrFull", err)
		}
		if err := errors.Join(one.Close(), two.Close()); err != nil {
			t.Fatal(err)
		}
		if left := b.reserved.Load(); left != 0 {
			t.Errorf("%d bytes stay promised to drafts that are closed", left)
		}
		// An upstream may announce any size.
		reserve(t, create(t, b, cache.Descriptor{Digest: digest.FromString("huge"), Size: math.MaxInt64}), cache.ErrFull)
		publish(t, b, "1", 600)
		if left := b.reserved.Load(); left != 0 {
			t.Errorf("%d bytes stay promised to a draft that is committed", left)
		}
		reserve(t, create(t, b, second), nil)
		if _, err := b.Create(t.Context(), third); !errors.Is(err, cache.ErrFull) {
			t.Errorf("Create with nothing above MinFree: %v, want ErrFull", err)
		}
	})

	t.Run("a real file system says how much is free", func(t *testing.T) {
		b := open(t, t.TempDir(), Options{}).blobs
		want := descriptor("x", 1)
		want.Size = 1 << 60
		reserve(t, create(t, b, want), cache.ErrFull)
		reserve(t, create(t, b, descriptor("x", 1)), nil)
	})
}

func reserve(t *testing.T, draft cache.Draft, want error) {
	t.Helper()
	if err := draft.Reserve(); !errors.Is(err, want) {
		t.Errorf("Reserve: %v, want %v", err, want)
	}
}

func TestFoldersClearedAway(t *testing.T) {
	b := open(t, t.TempDir(), Options{}).blobs
	d := publish(t, b, "content", 100)
	if err := os.RemoveAll(filepath.Join(b.root, "sha256")); err != nil {
		t.Fatal(err)
	}
	publish(t, b, "content", 100)
	if _, err := b.Stat(t.Context(), d); err != nil {
		t.Errorf("content published after its folder was removed: %v", err)
	}
}

// pattern is n bytes that differ with the word.
func pattern(word string, n int) []byte {
	return bytes.Repeat([]byte(word+"/"), n/(len(word)+1)+1)[:n]
}

func descriptor(word string, n int) cache.Descriptor {
	return cache.Descriptor{Digest: digest.FromBytes(pattern(word, n)), Size: int64(n)}
}

func create(t *testing.T, b cache.Blobs, want cache.Descriptor) cache.Draft {
	t.Helper()
	draft, err := b.Create(context.WithoutCancel(t.Context()), want)
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	t.Cleanup(func() { draft.Close() })
	return draft
}

func publish(t *testing.T, b cache.Blobs, word string, n int) cache.Digest {
	t.Helper()
	want := descriptor(word, n)
	draft := create(t, b, want)
	if _, err := draft.Write(pattern(word, n)); err != nil {
		t.Fatalf("Write: %v", err)
	}
	if err := draft.Commit(); err != nil {
		t.Fatalf("Commit: %v", err)
	}
	if err := draft.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	return want.Digest
}

// list is the names in a folder.
func list(t *testing.T, folder string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// Each folder takes an inode, and there may be as many folders as files.
func TestAFolderWithoutContentIsRemoved(t *testing.T) {
	b := open(t, t.TempDir(), Options{}).blobs
	for range 2 {
		d := publish(t, b, "content", large)
		path, _ := b.pathOf(d)
		beside := filepath.Join(filepath.Dir(path), "beside")
		if err := os.WriteFile(beside, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := b.Delete(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		if left := list(t, filepath.Dir(path)); !slices.Equal(left, []string{"beside"}) {
			t.Errorf("beside content that was deleted is %q", left)
		}
		publish(t, b, "content", large)
		if err := errors.Join(os.Remove(beside), b.Delete(t.Context(), d)); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(filepath.Dir(path)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the folder is left: %v", err)
		}
	}
}

func TestContentThatFailsItsDigestIsQuarantinedByVerify(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir, Options{}).blobs
	d := publish(t, b, "good", 600_000)
	path, _ := b.pathOf(d)
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteAt([]byte("bad"), 300_000); err != nil {
		t.Fatal(err)
	}
	file.Close()
	if _, err := b.Verify(t.Context(), d, func(int) error { return nil }); !errors.Is(err, cache.ErrMismatch) {
		t.Errorf("Verify of damaged content: %v, want ErrMismatch", err)
	}
	if _, err := b.Stat(t.Context(), d); !errors.Is(err, cache.ErrNotFound) {
		t.Errorf("Stat of what was quarantined: %v, want ErrNotFound", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "damaged", d.Encoded())); err != nil {
		t.Errorf("the damaged file was not quarantined: %v", err)
	}
}
