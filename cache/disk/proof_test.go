package disk

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/entrepot/entrepot/cache"
)

// A client may read while the cache is closed: Close waits for the proofs that
// began before it, and none begins after it.
func TestNoProofBeginsWhenTheCacheIsClosed(t *testing.T) {
	for range 2 {
		c := open(t, t.TempDir(), Options{})
		var opened []cache.PublishedBlob
		for i := range 8 {
			d := publish(t, c.blobs, string(rune('a'+i)), large)
			path, _ := c.blobs.pathOf(d)
			if err := os.Remove(path + sumsSuffix); err != nil {
				t.Fatal(err)
			}
			opened = append(opened, openKept(t, c.blobs, d))
		}
		last := opened[len(opened)-1]
		var readers sync.WaitGroup
		for _, blob := range opened[:len(opened)-1] {
			readers.Go(func() { _, _ = blob.Check(context.Background(), 0, 1) })
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if n, err := last.Check(t.Context(), 0, 1); err == nil {
			t.Errorf("after Close %d bytes were proven", n)
		}
		readers.Wait()
		made, err := filepath.Glob(filepath.Join(c.blobs.root, "*", "*", "*"+sumsSuffix))
		if err != nil || len(made) == len(opened) {
			t.Errorf("%d files of checksums, %v", len(made), err)
		}
	}
}
