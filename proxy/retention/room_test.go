package retention_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/proxy/retention"
)

func TestTheLeastRecentlyPulledImageIsEvictedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, func(opts *mirror.Options) { opts.Bounds.MaxBytes = 450 << 10; opts.Rules.TagTTL = time.Hour * 1000 })
		digests := map[string]retention.Digest{}
		layers := map[string]retention.Descriptor{}
		for i, tag := range []string{"a", "b", "c", "d"} {
			_, layers[tag] = o.Image("app", tag, mirrortest.Bytes(byte(i), 100<<10))
			digests[tag] = m.PullImage(t, mirrortest.App, tag)
			time.Sleep(time.Minute)
		}
		// A HEAD request for the tag is a use of the whole image, and so is a
		// request for a blob that only this image has.
		if _, err := m.Manifest(t.Context(), mirrortest.App, "a"); err != nil {
			t.Fatal(err)
		}
		if err := m.Read(t.Context(), mirrortest.App, layers["b"].Digest); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		o.Image("app", "e", mirrortest.Bytes(9, 100<<10))
		m.PullImage(t, mirrortest.App, "e")
		mirrortest.Wait()
		for tag, want := range map[string]bool{"a": true, "b": true, "c": false, "d": true} {
			if m.HasManifest(mirrortest.App, digests[tag]) != want {
				t.Errorf("the image %s is cached: %v", tag, !want)
			}
			if m.Store.Has(t.Context(), layers[tag].Digest) != want {
				t.Errorf("the layer of %s is cached: %v", tag, !want)
			}
		}
		// Evicted content is downloaded again.
		o.Transcript()
		m.PullImage(t, mirrortest.App, "c")
		if asked := o.Transcript(); !slices.Contains(asked, "GET blob app "+mirrortest.Short(layers["c"].Digest.String())) {
			t.Errorf("what was evicted was not fetched again: %v", asked)
		}
	})
}

func TestSharedLayersStayWhileAnImageNeedsThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, func(opts *mirror.Options) { opts.Bounds.MaxBytes = 350 << 10; opts.Rules.TagTTL = time.Hour * 1000 })
		shared := mirrortest.Bytes(1, 100<<10)
		_, layer := o.Image("app", "old", shared)
		old := m.PullImage(t, mirrortest.App, "old")
		time.Sleep(time.Minute)
		o.Image("app", "new", shared)
		kept := m.PullImage(t, mirrortest.App, "new")
		time.Sleep(time.Minute)
		for i := range 3 {
			o.Image("other", fmt.Sprint(i), mirrortest.Bytes(byte(10+i), 90<<10))
			m.PullImage(t, retention.Repository{Upstream: "hub", Name: "other"}, fmt.Sprint(i))
			time.Sleep(time.Minute)
			if _, err := m.Manifest(t.Context(), mirrortest.App, "new"); err != nil {
				t.Fatal(err)
			}
		}
		mirrortest.Wait()
		if m.HasManifest(mirrortest.App, old) {
			t.Error("the image that was pulled least recently is still cached")
		}
		if !m.HasManifest(mirrortest.App, kept) || !m.Store.Has(t.Context(), layer.Digest) {
			t.Error("an image in use has lost the layer that it shared")
		}
	})
}

func TestAnImageIsEvictedWithItsPlatformsAndReferrers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, func(opts *mirror.Options) { opts.Bounds.MaxBytes = 500 << 10; opts.Rules.TagTTL = time.Hour * 1000 })
		amd, _ := o.Image("app", "1-amd64", mirrortest.Bytes(1, 100<<10))
		arm, _ := o.Image("app", "1-arm64", mirrortest.Bytes(2, 100<<10))
		o.Remove("app", "1-arm64")
		raw, _ := json.Marshal(ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []retention.Descriptor{amd, arm}})
		index := o.Put("app", ocispec.MediaTypeImageIndex, raw, "1")
		signature := o.Attach(index, "signature")
		o.List(index.Digest, signature)
		m.PullImage(t, mirrortest.App, "1")
		if _, err := m.Referrers(t.Context(), mirrortest.App, index.Digest); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		m.PullImage(t, mirrortest.App, "1-amd64") // a child that has a name of its own
		time.Sleep(time.Minute)
		for i := range 3 {
			o.Image("other", fmt.Sprint(i), mirrortest.Bytes(byte(10+i), 100<<10))
			m.PullImage(t, retention.Repository{Upstream: "hub", Name: "other"}, fmt.Sprint(i))
			time.Sleep(time.Minute)
		}
		mirrortest.Wait()
		for name, d := range map[string]retention.Descriptor{"the index": index, "its nameless child": arm, "its signature": signature} {
			if m.HasManifest(mirrortest.App, d.Digest) || m.Store.Has(t.Context(), d.Digest) {
				t.Errorf("%s is still cached", name)
			}
		}
		if _, ok := m.Ledger.Tag(mirrortest.App, referrers.TagOf(index.Digest)); ok {
			t.Error("its referrers tag is still on record")
		}
		if rec, ok := m.Ledger.Referrers(mirrortest.App, index.Digest); ok {
			t.Errorf("its referrers are still on record: %v", rec)
		}
		if !m.HasManifest(mirrortest.App, amd.Digest) {
			t.Error("a child with a name of its own went, too")
		}
	})
}

func TestEvictedBytesAreReportedAsTheyAreFreed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const layer, images = 20 << 10, 10
		o := mirrortest.NewOrigin()
		var m mirrortest.Mirror
		var told []int64
		var sum int64
		m = mirrortest.New(t, o, func(opts *mirror.Options) {
			opts.Bounds.MaxBytes = (images + 1) * layer
			opts.Events.Evicted = func(bytes int64) {
				// Others are published as there is room, so what is on disk says
				// nothing of what has gone.
				told, sum = append(told, bytes), sum+bytes
				if removed := m.Store.State().Removed; removed != sum {
					t.Errorf("%d bytes were removed when %d had been reported", removed, sum)
				}
			}
		})
		for i := range images {
			o.Image("app", fmt.Sprint(i), mirrortest.Bytes(byte(i), layer))
			m.PullImage(t, mirrortest.App, fmt.Sprint(i))
			time.Sleep(time.Minute)
		}
		o.Image("app", "large", mirrortest.Bytes(99, 5*layer))
		m.PullImage(t, mirrortest.App, "large")
		mirrortest.Wait()
		if len(told) < 4 {
			t.Fatalf("told of %d bytes, which are four images at least", told)
		}
		if got := m.BytesOnDisk(t); got > (images+1)*layer || got < (images+1)*layer*6/10 {
			t.Errorf("%d bytes are left", got)
		}
	})
}

func TestTheBoundHoldsWhileImagesArePulled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		const bound = 1 << 20
		var worst int64
		m := mirrortest.New(t, o, func(opts *mirror.Options) {
			opts.Bounds.MaxBytes = bound
			opts.Events.Usage = func(bytes int64) { worst = max(worst, bytes) }
		})
		for i := range 60 {
			tag := fmt.Sprint(i)
			o.Image("app", tag, mirrortest.Bytes(byte(i), 100<<10))
			m.PullImage(t, mirrortest.App, tag)
			if got := m.BytesOnDisk(t); got > bound {
				t.Fatalf("after %d images %d bytes are cached", i+1, got)
			}
		}
		mirrortest.Wait()
		if got := m.BytesOnDisk(t); got > bound || got < bound*7/10 {
			t.Errorf("%d bytes are cached of %d that may be", got, bound)
		}
		if worst > bound {
			t.Errorf("%d bytes were cached for a moment", worst)
		}
		checkImagesComplete(t, m)
	})
}

// checkImagesComplete checks that everything that a manifest on record
// references is here. It is for mirrors whose clients pull complete images.
func checkImagesComplete(t *testing.T, m mirrortest.Mirror) {
	t.Helper()
	err := m.Records.Scan(bucketManifest, "", func(key string, value []byte) bool {
		var rec metadata.Manifest
		if err := json.Unmarshal(value, &rec); err != nil {
			t.Error(err)
		}
		for _, b := range rec.Blobs {
			if !m.Store.Has(context.Background(), b.Digest) {
				t.Errorf("%s is cached without its blob %s", strings.ReplaceAll(key, "\x00", " "), b.Digest)
			}
		}
		return true
	})
	if err != nil {
		t.Error(err)
	}
}

func TestABlobLargerThanTheBoundIsServedWithoutBeingCached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, func(opts *mirror.Options) { opts.Bounds.MaxBytes = 50 << 10 })
		_, small := o.Image("app", "small", mirrortest.Bytes(1, 10<<10))
		m.PullImage(t, mirrortest.App, "small")
		_, large := o.Image("app", "large", mirrortest.Bytes(2, 100<<10))
		m.PullImage(t, mirrortest.App, "large")
		mirrortest.Wait()
		if m.Store.Has(t.Context(), large.Digest) {
			t.Error("it is cached")
		}
		if !m.Store.Has(t.Context(), small.Digest) {
			t.Error("others had to go for it")
		}
	})
}

func TestEvictionFreesAFileSystemThatFillsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		var free atomic.Int64
		free.Store(10 << 20)
		m := mirrortest.New(t, o, func(opts *mirror.Options) {
			opts.Bounds.MinFree = 1 << 20
			opts.Bounds.Space = func() (cache.Space, error) { return cache.Space{Bytes: 1 << 30, FreeBytes: free.Load()}, nil }
		})
		_, layer := o.Image("app", "1", mirrortest.Bytes(1, 100<<10))
		m.PullImage(t, mirrortest.App, "1")
		mirrortest.Wait()
		free.Store(1<<20 - 1) // others fill it
		time.Sleep(retention.CheckInterval + time.Second)
		mirrortest.Wait()
		if m.Store.Has(t.Context(), layer.Digest) {
			t.Error("nothing was evicted")
		}
	})
}

func TestUnreferencedBlobsAreEvictedByTheirOwnUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, func(opts *mirror.Options) { opts.Bounds.MaxBytes = 350 << 10 })
		stray := o.Put("app", "x", mirrortest.Bytes(1, 100<<10))
		if err := m.Read(t.Context(), mirrortest.App, stray.Digest); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		for i := range 3 {
			o.Image("app", fmt.Sprint(i), mirrortest.Bytes(byte(10+i), 100<<10))
			m.PullImage(t, mirrortest.App, fmt.Sprint(i))
			time.Sleep(time.Minute)
		}
		mirrortest.Wait()
		if m.Store.Has(t.Context(), stray.Digest) {
			t.Error("the blob that was used least recently is still cached")
		}
		checkImagesComplete(t, m)
	})
}

func TestPurge(t *testing.T) {
	type state struct {
		mirrortest.Mirror
		o            *mirrortest.Origin
		one, two     retention.Descriptor // manifests
		layer, other retention.Descriptor // of the first, of the second
	}
	for name, c := range map[string]struct {
		target func(s state) retention.Target
		check  func(t *testing.T, s state, gone retention.Purged, err error)
	}{
		"one of two tags": {
			func(state) retention.Target { return retention.Target{Repository: mirrortest.App, Ref: "also"} },
			func(t *testing.T, s state, gone retention.Purged, err error) {
				if err != nil || len(gone.Tags) != 1 || gone.Bytes != 0 || !s.HasManifest(mirrortest.App, s.one.Digest) {
					t.Errorf("%+v, %v", gone, err)
				}
			},
		},
		"the only tag": {
			func(state) retention.Target { return retention.Target{Repository: mirrortest.App, Ref: "two"} },
			func(t *testing.T, s state, gone retention.Purged, err error) {
				if err != nil || len(gone.Manifests) != 1 || s.HasManifest(mirrortest.App, s.two.Digest) || s.Store.Has(t.Context(), s.other.Digest) || !s.Store.Has(t.Context(), s.layer.Digest) {
					t.Errorf("%+v, %v", gone, err)
				}
			},
		},
		"a repository": {
			func(state) retention.Target { return retention.Target{Repository: mirrortest.App, Ref: ""} },
			func(t *testing.T, s state, gone retention.Purged, err error) {
				if err != nil || len(gone.Manifests) != 2 || len(gone.Tags) != 3 || s.BytesOnDisk(t) != 0 {
					t.Errorf("%+v, %v, %d bytes cached", gone, err, s.BytesOnDisk(t))
				}
			},
		},
		"a digest of a manifest": {
			func(s state) retention.Target { return retention.Target{Ref: s.one.Digest.String()} },
			func(t *testing.T, s state, gone retention.Purged, err error) {
				if err != nil || len(gone.Manifests) != 1 || len(gone.Tags) != 2 || s.Store.Has(t.Context(), s.layer.Digest) {
					t.Errorf("%+v, %v", gone, err)
				}
			},
		},
		"a digest of a blob": {
			func(s state) retention.Target { return retention.Target{Ref: s.layer.Digest.String()} },
			func(t *testing.T, s state, gone retention.Purged, err error) {
				if err != nil || gone.Blobs != 1 || s.Store.Has(t.Context(), s.layer.Digest) || !s.HasManifest(mirrortest.App, s.one.Digest) {
					t.Errorf("%+v, %v", gone, err)
				}
				if err := s.Read(t.Context(), mirrortest.App, s.layer.Digest); err != nil {
					t.Errorf("it is not fetched again: %v", err)
				}
			},
		},
		"what is not kept": {
			func(state) retention.Target { return retention.Target{Repository: mirrortest.App, Ref: "three"} },
			func(t *testing.T, _ state, gone retention.Purged, err error) {
				if !errors.Is(err, retention.ErrNotCached) {
					t.Errorf("%+v, %v", gone, err)
				}
			},
		},
		"what is pinned": {
			func(s state) retention.Target {
				s.Ledger.PutPin(retention.Reference{Repository: mirrortest.App, Ref: "two"})
				return retention.Target{Repository: mirrortest.App, Ref: ""}
			},
			func(t *testing.T, s state, gone retention.Purged, err error) {
				if !errors.Is(err, retention.ErrPinned) || !s.HasManifest(mirrortest.App, s.one.Digest) {
					t.Errorf("%+v, %v", gone, err)
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := mirrortest.NewOrigin()
				s := state{Mirror: mirrortest.New(t, o, nil), o: o}
				s.one, s.layer = o.Image("app", "one", mirrortest.Bytes(1, 100<<10))
				o.Put("app", s.one.MediaType, o.Content["app one"].Body, "also")
				s.two, s.other = o.Image("app", "two", mirrortest.Bytes(2, 100<<10))
				for _, tag := range []string{"one", "also", "two"} {
					s.PullImage(t, mirrortest.App, tag)
				}
				mirrortest.Wait()
				target := c.target(s)
				before := s.BytesOnDisk(t)
				dry, dryErr := s.Purge(t.Context(), target, true)
				if s.BytesOnDisk(t) != before {
					t.Error("a dry run took something away")
				}
				gone, err := s.Purge(t.Context(), target, false)
				if fmt.Sprint(dry, dryErr) != fmt.Sprint(gone, err) {
					t.Errorf("a dry run says %+v, %v\nthe purge says %+v, %v", dry, dryErr, gone, err)
				}
				c.check(t, s, gone, err)
			})
		})
	}
}

func TestInventory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, nil)
		_, layer := o.Image("app", "whole", mirrortest.Bytes(1, 100<<10))
		m.PullImage(t, mirrortest.App, "whole")
		at := time.Now()
		time.Sleep(2 * time.Minute)
		o.Image("app", "half", mirrortest.Bytes(2, 100<<10))
		if _, err := m.Manifest(t.Context(), mirrortest.App, "half"); err != nil {
			t.Fatal(err)
		}
		m.Ledger.PutPin(retention.Reference{Repository: mirrortest.App, Ref: "whole"})
		list, err := m.Inventory(t.Context())
		if err != nil || len(list.Images) != 2 {
			t.Fatalf("%+v, %v", list, err)
		}
		half, whole := list.Images[0], list.Images[1]
		if half.Whole || half.Pinned || !half.Fresh || half.Tags[0] != "half" {
			t.Errorf("half: %+v", half)
		}
		if !whole.Whole || !whole.Pinned || whole.Fresh || !whole.LastPulled.Equal(at) || whole.Alone < layer.Size || whole.Size != whole.Alone {
			t.Errorf("whole: %+v", whole)
		}
		if list.Bytes != m.BytesOnDisk(t) || list.Strays != 0 {
			t.Errorf("%+v, while %d bytes are cached", list, m.BytesOnDisk(t))
		}
	})
}

func TestAScrubQuarantinesDamageAndItIsDownloadedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, nil)
		_, layer := o.Image("app", "1", mirrortest.Bytes(1, 100<<10))
		m.PullImage(t, mirrortest.App, "1")
		mirrortest.Wait()
		m.Disk.Damage(layer.Digest)
		began := time.Now()
		steps := 0
		done, err := m.Scrub(t.Context(), 50<<10, func(retention.Scrubbed) { steps++ })
		if err != nil || len(done.Damaged) != 1 || done.Damaged[0] != layer.Digest || done.Files != 3 || steps != 3 {
			t.Errorf("scrubbed: %+v, %v, in %d steps", done, err, steps)
		}
		if took := time.Since(began); took < time.Second || took > 4*time.Second {
			t.Errorf("100 KiB at 50 KiB a second took %s", took)
		}
		if m.Store.Has(t.Context(), layer.Digest) {
			t.Error("what is damaged is still cached")
		}
		o.Transcript()
		if err := m.Read(t.Context(), mirrortest.App, layer.Digest); err != nil {
			t.Error(err)
		}
		mirrortest.WantTranscript(t, o, "GET blob app "+mirrortest.Short(layer.Digest.String()))
	})
}
