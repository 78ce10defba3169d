package retention_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
)

// writtenBlobs counts what is written to drafts.
type writtenBlobs struct {
	cache.Blobs
	bytes *atomic.Int64
}

func (b writtenBlobs) Create(ctx context.Context, want cache.Descriptor) (cache.Draft, error) {
	draft, err := b.Blobs.Create(ctx, want)
	if err != nil {
		return nil, err
	}
	return writtenDraft{draft, b.bytes}, nil
}

type writtenDraft struct {
	cache.Draft
	bytes *atomic.Int64
}

func (d writtenDraft) Write(b []byte) (int, error) {
	n, err := d.Draft.Write(b)
	d.bytes.Add(int64(n))
	return n, err
}

func (d writtenDraft) WriteAt(b []byte, off int64) (int, error) {
	n, err := d.Draft.WriteAt(b, off)
	d.bytes.Add(int64(n))
	return n, err
}

// A blob that can never be kept wears out no disk, however often it is pulled.
func TestABlobLargerThanTheBoundIsNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 8 << 20
		for _, c := range []struct {
			name  string
			bound int64
			most  int64
		}{
			{"half of it", size / 2, 64 << 10},
			{"as much", size, 64 << 10}, // manifests have to fit, too
			{"twice as much", 2 * size, size + 64<<10},
		} {
			var written atomic.Int64
			o := mirrortest.NewOrigin()
			m := mirrortest.New(t, o, func(opts *mirror.Options) {
				opts.Bounds.MaxBytes = c.bound
				opts.Blobs = writtenBlobs{opts.Blobs, &written}
			})
			_, layer := o.Image("app", "1", mirrortest.Bytes(1, size))
			m.PullImage(t, mirrortest.App, "1")
			for range 2 {
				if err := m.Read(t.Context(), mirrortest.App, layer.Digest); err != nil {
					t.Fatal(err)
				}
				mirrortest.Wait()
			}
			if n := written.Load(); n > c.most || n < min(c.most, size) && c.bound > size {
				t.Errorf("the bound is %s: %d bytes are written of three pulls of %d", c.name, n, size)
			}
			if m.Store.Has(t.Context(), layer.Digest) != (c.bound > size) {
				t.Errorf("the bound is %s: kept is %t", c.name, c.bound <= size)
			}
		}
	})
}
