package retention_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/retention"
)

// A cache that is full when it is opened serves every client, and has what is
// new within a second of the first room. With ENTREPOT_IMAGES=100000 it has so
// many images; the clock is a real one.
func TestAFullCacheOfManyImagesServesEveryClient(t *testing.T) {
	images := 2000
	if n, err := strconv.Atoi(os.Getenv("ENTREPOT_IMAGES")); err == nil {
		images = n
	}
	o := mirrortest.NewOrigin()
	disk := memory.New()
	stored := fillWithImages(t, disk, images)
	var freed, first atomic.Int64 // when the first bytes were freed, and when the first new blob was there
	began := time.Now()
	since := func(at *atomic.Int64) { at.CompareAndSwap(0, int64(time.Since(began))+1) }
	var bypassed atomic.Int64
	walks := &countedWalks{Blobs: disk.Blobs()}
	m := mirrortest.New(t, o, func(opts *mirror.Options) {
		opts.Blobs, opts.Records = walks, disk.Records()
		opts.Bounds.MaxBytes = stored - stored/1000
		opts.MaxFlights = 256
		opts.Events.Evicted = func(int64) { since(&freed) }
		opts.Events.Bypassed = func(string) { bypassed.Add(1) }
	})
	const clients, each = 16, 60
	var all sync.WaitGroup
	var failed, kept atomic.Int64
	for c := range clients {
		var layers []mirrortest.Descriptor
		for i := range each {
			layers = append(layers, o.Put("app", "layer", fmt.Appendf(nil, "new %d %d", c, i)))
		}
		all.Go(func() {
			for _, layer := range layers {
				if err := m.Read(t.Context(), mirrortest.App, layer.Digest); err != nil {
					failed.Add(1)
					t.Errorf("a client got %v", err)
				}
			}
			for _, layer := range layers {
				for at := time.Now(); time.Since(at) < 20*time.Second; time.Sleep(time.Millisecond) {
					if m.Flights.Get(layer.Digest) == nil {
						break
					}
				}
				if m.Store.Has(context.Background(), layer.Digest) {
					since(&first)
					kept.Add(1)
				}
			}
		})
	}
	all.Wait()
	late := time.Duration(first.Load() - freed.Load())
	t.Logf("%d images: room after %s, the first new blob %s later; %d of %d failed, %d kept, %d bypassed", images,
		time.Duration(freed.Load()), late, failed.Load(), clients*each, kept.Load(), bypassed.Load())
	if freed.Load() == 0 || kept.Load() == 0 || late > time.Second {
		t.Errorf("what is new was there %s after there was room", late)
	}
	if kept.Load()+bypassed.Load() < clients*each {
		t.Errorf("%d are kept and %d bypassed the cache, of %d", kept.Load(), bypassed.Load(), clients*each)
	}
}

// A start after a clean end counts nothing, and publishes at once.
func TestAStartAfterACleanEndCountsNothing(t *testing.T) {
	o := mirrortest.NewOrigin()
	disk := memory.New()
	stored := fillWithImages(t, disk, 10)
	for _, c := range []struct {
		name  string
		clean bool
		walks bool
	}{{"the first", false, true}, {"after a clean end", true, false}, {"after another", true, false}, {"after a crash", false, true}} {
		walks := &countedWalks{Blobs: disk.Blobs()}
		m := mirrortest.New(t, o, func(opts *mirror.Options) {
			opts.Blobs, opts.Records = walks, disk.Records()
			opts.Bounds.MaxBytes = stored * 2
		})
		if c.name == "after a crash" {
			metadata.SaveStored(disk.Records(), metadata.StoredBytes{Bytes: stored})
			m.Close()
			metadata.SaveStored(disk.Records(), metadata.StoredBytes{Bytes: stored})
			m = mirrortest.New(t, o, func(opts *mirror.Options) {
				opts.Blobs, opts.Records = walks, disk.Records()
				opts.Bounds.MaxBytes = stored * 2
			})
		}
		content := fmt.Appendf(nil, "published by %s", c.name)
		layer := o.Put("app", "layer", content)
		if err := m.Read(t.Context(), mirrortest.App, layer.Digest); err != nil {
			t.Fatal(err)
		}
		for f := m.Flights.Get(layer.Digest); f != nil; f = nil {
			<-f.Done()
		}
		for at := time.Now(); c.walks && walks.n.Load() == 0 && time.Since(at) < 10*time.Second; {
			time.Sleep(time.Millisecond)
		}
		if walked := walks.n.Load() > 0; walked != c.walks {
			t.Errorf("%s walked the content: %v", c.name, walked)
		}
		if !m.Store.Has(t.Context(), layer.Digest) {
			t.Errorf("%s did not publish", c.name)
		}
		m.Close()
		m.WantUsageExact(t)
	}
}

type countedWalks struct {
	cache.Blobs
	n atomic.Int64
}

func (b *countedWalks) Walk(ctx context.Context, fn func(d retention.Digest, size int64) bool) error {
	b.n.Add(1)
	return b.Blobs.Walk(ctx, fn)
}

// fillWithImages stores images, and returns how many bytes they take.
func fillWithImages(t *testing.T, disk *memory.Cache, n int) (bytes int64) {
	t.Helper()
	ledger := metadata.New(disk.Records(), nil)
	put := func(content []byte) retention.Descriptor {
		d := retention.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromBytes(content), Size: int64(len(content))}
		draft, err := disk.Blobs().Create(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		_, err = draft.Write(content)
		if err = errors.Join(err, draft.Commit(), draft.Close()); err != nil {
			t.Fatal(err)
		}
		bytes += disk.Blobs().Weight(d.Size)
		return d
	}
	for i := range n {
		layer := put(fmt.Appendf(nil, "layer %d of many", i))
		raw, err := json.Marshal(ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Layers: []retention.Descriptor{layer}})
		if err != nil {
			t.Fatal(err)
		}
		manifest := put(raw)
		repo := retention.Repository{Upstream: "hub", Name: fmt.Sprintf("many/%d", i/100)}
		ledger.PutManifest(repo, manifest.Digest, metadata.Manifest{MediaType: ocispec.MediaTypeImageManifest, Size: manifest.Size, Blobs: []retention.Descriptor{layer}})
	}
	return bytes
}
