package warm_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/warm"
)

// countedStats counts how often it is asked whether content is there.
type countedStats struct {
	cache.Blobs
	n atomic.Int64
}

func (b *countedStats) Stat(ctx context.Context, d warm.Digest) (int64, error) {
	b.n.Add(1)
	return b.Blobs.Stat(ctx, d)
}

func TestOnlyPinnedImagesThatMayHaveChangedAreLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		var stats *countedStats
		m := mirrortest.New(t, o, func(opts *mirror.Options) {
			stats = &countedStats{Blobs: opts.Blobs}
			opts.Blobs = stats
			opts.Rules.TagTTL, opts.Rules.ReferrersTTL = 1000*time.Hour, 1000*time.Hour
			opts.Pins.Matches = func(warm.Repository, string) bool { return true }
		})
		const images, ofEach = 20, 3
		for i := range images {
			o.Image(fmt.Sprint("team/", i), "1", mirrortest.Bytes(byte(i), 1000))
			if _, err := m.Manifest(t.Context(), warm.Repository{Upstream: "hub", Name: fmt.Sprint("team/", i)}, "1"); err != nil {
				t.Fatal(err)
			}
		}
		image, layer := o.Image("app", "1", mirrortest.Bytes(99, 1000))
		if _, err := m.Manifest(t.Context(), mirrortest.App, "1"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * warm.PinInterval)
		if !m.Store.Has(t.Context(), layer.Digest) {
			t.Fatal("an image that a pattern pins is not complete")
		}
		look := func(after time.Duration) int64 {
			before := stats.n.Load()
			time.Sleep(after)
			synctest.Wait()
			return stats.n.Load() - before
		}
		if n := look(50 * time.Minute); n > 0 {
			t.Errorf("%d files were looked at although nothing has changed", n)
		}
		if n := look(10 * time.Minute); n < images*ofEach {
			t.Errorf("%d files of %d were looked at within an hour", n, images*ofEach)
		}
		look(5 * time.Minute)

		// Something refers to the image: that is a part of it.
		signature := o.Attach(image, "application/vnd.example.signature")
		known, _ := m.Ledger.Referrers(mirrortest.App, image.Digest)
		m.Ledger.PutReferrers(mirrortest.App, image.Digest, metadata.Referrers{At: known.At, Manifests: []metadata.Descriptor{signature}})
		n := look(2 * warm.PinInterval)
		if !m.Store.Has(t.Context(), signature.Digest) {
			t.Error("what has been found to refer to a pinned image is not fetched within two minutes")
		}
		if n >= images*ofEach/2 {
			t.Errorf("%d files were looked at because one image has changed", n)
		}

		m.Disk.Damage(layer.Digest)
		if s, err := m.Scrub(t.Context(), 0, nil); err != nil || len(s.Damaged) != 1 {
			t.Fatalf("scrubbed: %+v, %v", s, err)
		}
		look(2 * warm.PinInterval)
		if !m.Store.Has(t.Context(), layer.Digest) {
			t.Error("a damaged layer of a pinned image is not fetched again within two minutes")
		}
	})
}
