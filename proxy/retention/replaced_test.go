package retention_test

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

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
