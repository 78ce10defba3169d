package retention_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache/disk"
	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/retention"
)

// TestWhatIsReplacedIsCountedOnce has somebody else change the files of a cache
// while it runs. What is fetched again for that takes the place of what was
// counted.
func TestWhatIsReplacedIsCountedOnce(t *testing.T) {
	const size = 4 << 20
	for name, change := range map[string]func(path string) error{
		"removed":   os.Remove,
		"cut short": func(path string) error { return os.Truncate(path, size/2) },
		"emptied":   func(path string) error { return os.Truncate(path, 0) },
		"longer":    func(path string) error { return os.Truncate(path, 2*size) },
		"with a wrong bit": func(path string) error {
			file, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			defer file.Close()
			_, err = file.WriteAt([]byte{0xff, 0, 0xff}, size/2)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				kept, err := disk.Open(dir, disk.Options{})
				if err != nil {
					t.Fatal(err)
				}
				defer kept.Close()
				o := mirrortest.NewOrigin()
				m := mirrortest.New(t, o, func(opts *mirror.Options) {
					opts.Blobs, opts.Records = kept.Blobs(), kept.Records()
					opts.Bounds.MaxBytes = 100 << 20
				})
				defer m.Close()
				var layers []retention.Descriptor
				for i, tag := range []string{"one", "two"} {
					_, layer := o.Image("app", tag, mirrortest.Bytes(byte(i), size))
					layers = append(layers, layer)
					m.PullImage(t, mirrortest.App, tag)
				}
				mirrortest.Wait()
				wantWeight(t, m)
				before := m.Store.State().Used

				hex := layers[0].Digest.Encoded()
				if err := change(filepath.Join(dir, "blobs", "sha256", hex[:2], hex)); err != nil {
					t.Fatal(err)
				}
				for range 3 {
					if err := m.Read(t.Context(), mirrortest.App, layers[0].Digest); err != nil {
						t.Fatal(err)
					}
					mirrortest.Wait()
				}
				time.Sleep(retention.CheckInterval + time.Second)
				mirrortest.Wait()
				if !m.Store.Has(t.Context(), layers[0].Digest) {
					t.Error("it is not kept again")
				}
				if now := m.Store.State().Used; now != before {
					t.Errorf("%d bytes are counted, and %d were before", now, before)
				}
				wantWeight(t, m)
			})
		})
	}
}

// TestWhatIsReplacedWhileNoProcessRunsIsCountedOnce has somebody else change the
// files of a cache between two runs: the second one counts nothing that is not
// there.
func TestWhatIsReplacedWhileNoProcessRunsIsCountedOnce(t *testing.T) {
	const size = 1 << 20
	for name, change := range map[string]func(path string) error{
		"nothing": func(string) error { return nil },
		"removed": os.Remove,
		"all of a folder removed": func(path string) error {
			return os.RemoveAll(filepath.Dir(path))
		},
		"another file added": func(path string) error {
			other := digest.FromString("x").Encoded()
			folder := filepath.Join(filepath.Dir(filepath.Dir(path)), other[:2])
			return errors.Join(os.MkdirAll(folder, 0o700), os.WriteFile(filepath.Join(folder, other), []byte("x"), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				o := mirrortest.NewOrigin()
				walks := 0
				start := func() (m mirrortest.Mirror, stop func()) {
					kept, err := disk.Open(dir, disk.Options{})
					if err != nil {
						t.Fatal(err)
					}
					counted := &countedWalks{Blobs: kept.Blobs()}
					m = mirrortest.New(t, o, func(opts *mirror.Options) {
						opts.Blobs, opts.Records = counted, kept.Records()
						opts.Bounds.MaxBytes = 100 << 20
					})
					mirrortest.Wait()
					walks = int(counted.n.Load())
					return m, func() {
						m.Close()
						if err := kept.Close(); err != nil {
							t.Error(err)
						}
					}
				}
				m, stop := start()
				_, layer := o.Image("app", "1", mirrortest.Bytes(1, size))
				m.PullImage(t, mirrortest.App, "1")
				mirrortest.Wait()
				stop()
				hex := layer.Digest.Encoded()
				path := filepath.Join(dir, "blobs", "sha256", hex[:2], hex)
				// A folder tells of what happens within one tick of the clock only once.
				if err := os.Chtimes(filepath.Dir(path), time.Time{}, time.Unix(1e9, 0)); err != nil {
					t.Fatal(err)
				}
				m, stop = start()
				wantWeight(t, m)
				stop()
				if err := change(path); err != nil {
					t.Fatal(err)
				}
				m, stop = start()
				defer stop()
				if (walks > 0) != (name != "nothing") {
					t.Errorf("the content was walked %d times", walks)
				}
				wantWeight(t, m)
				m.PullImage(t, mirrortest.App, "1")
				mirrortest.Wait()
				if !m.HasContent(layer.Digest) {
					t.Error("it is not kept again")
				}
				wantWeight(t, m)
			})
		})
	}
}

// wantWeight checks the count of bytes in use against what is on disk.
func wantWeight(t *testing.T, m mirrortest.Mirror) {
	t.Helper()
	var stored int64
	if err := m.Store.Walk(t.Context(), func(_ retention.Digest, size int64) bool {
		stored += m.Store.Weight(size)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if used := m.Store.State().Used; used != stored {
		t.Errorf("%d bytes are counted, and %d are stored", used, stored)
	}
}
