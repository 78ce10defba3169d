package retention_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/retention"
)

// putWide puts an image that names many blobs, of which the last is there.
func putWide(o *mirrortest.Origin, tag string, size int) (layer retention.Descriptor) {
	layer = o.Put("app", "", mirrortest.Bytes(tag[0], size))
	config := o.Put("app", "", []byte("{}"))
	var layers []string
	for i := range 2000 {
		layers = append(layers, fmt.Sprintf(`{"digest":"%s","size":1}`, digest.FromString(fmt.Sprint(tag, i))))
	}
	layers = append(layers, fmt.Sprintf(`{"digest":"%s","size":%d}`, layer.Digest, layer.Size))
	o.Put("app", ocispec.MediaTypeImageManifest, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"%s","config":{"digest":"%s","size":2},"layers":[%s]}`,
		ocispec.MediaTypeImageManifest, config.Digest, strings.Join(layers, ",")), tag)
	return layer
}

// Its record does not have all that it names, and everything goes by that.
func TestAWideImageIsAnImage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, func(opts *mirror.Options) { opts.Bounds.MaxBytes = 1 << 20; opts.Rules.TagTTL = 1000 * time.Hour })
		layer := putWide(o, "wide", 100<<10)
		wide, err := m.Manifest(t.Context(), mirrortest.App, "wide")
		if err != nil {
			t.Fatal(err)
		}
		if rec, _ := m.Ledger.Manifest(mirrortest.App, wide.Descriptor.Digest); !rec.Wide || len(rec.Blobs) > 256 {
			t.Errorf("its record has %d blobs, wide: %t", len(rec.Blobs), rec.Wide)
		}
		// A layer belongs to the repository, so that the upstream is not asked
		// whether it does when another one has it.
		other := retention.Repository{Upstream: "hub", Name: "other"}
		o.Put("other", "", mirrortest.Bytes('w', 100<<10))
		if err := m.Read(t.Context(), other, layer.Digest); err != nil {
			t.Fatal(err)
		}
		o.Transcript()
		if err := m.Read(t.Context(), mirrortest.App, layer.Digest); err != nil {
			t.Fatal(err)
		}
		if asked := o.Transcript(); len(asked) != 0 {
			t.Errorf("the upstream was asked %v", asked)
		}
		if member, ok := m.Ledger.Member(mirrortest.App, layer.Digest); !ok || member.Size != layer.Size {
			t.Errorf("what was asked for is on record: %+v, %t", member, ok)
		}
		if m.IsComplete(t.Context(), retention.Reference{Repository: mirrortest.App, Ref: "wide"}, false) {
			t.Error("it counts as complete without its layers")
		}
		list, err := m.Inventory(t.Context())
		if err != nil || len(list.Images) != 1 || list.Strays != 0 || list.Images[0].Size < layer.Size {
			t.Fatalf("%+v, %v", list, err)
		}

		// It is evicted with its layer, and not before others.
		time.Sleep(time.Minute)
		o.Image("app", "small", mirrortest.Bytes(1, 200<<10))
		small := m.PullImage(t, mirrortest.App, "small")
		time.Sleep(time.Minute)
		if err := m.Read(t.Context(), mirrortest.App, layer.Digest); err != nil { // a use of the image
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		for i := range 6 {
			o.Image("app", fmt.Sprint("large", i), mirrortest.Bytes(byte(10+i), 100<<10))
			m.PullImage(t, mirrortest.App, fmt.Sprint("large", i))
		}
		mirrortest.Wait()
		if m.HasManifest(mirrortest.App, small) || !m.HasManifest(mirrortest.App, wide.Descriptor.Digest) || !m.Store.Has(t.Context(), layer.Digest) {
			t.Errorf("small is there: %v, wide: %v, its layer: %v", m.HasManifest(mirrortest.App, small), m.HasManifest(mirrortest.App, wide.Descriptor.Digest), m.Store.Has(t.Context(), layer.Digest))
		}
		if _, err := m.Purge(t.Context(), retention.Target{Repository: mirrortest.App, Ref: "wide"}, false); err != nil {
			t.Fatal(err)
		}
		if m.HasManifest(mirrortest.App, wide.Descriptor.Digest) || m.Store.Has(t.Context(), layer.Digest) || m.Store.Has(t.Context(), wide.Descriptor.Digest) {
			t.Error("it was purged, and something is there")
		}
		if _, ok := m.Ledger.Member(mirrortest.App, layer.Digest); ok || len(m.Ledger.WideManifests(mirrortest.App)) > 0 {
			t.Error("it was purged, and its layer belongs to the repository still")
		}
	})
}

func TestAPinnedWideImageIsFetchedWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, nil)
		var layers []string
		var digests []retention.Digest
		for i := range 300 {
			d := o.Put("app", "", []byte(fmt.Sprint("layer ", i)))
			layers, digests = append(layers, fmt.Sprintf(`{"digest":"%s","size":%d}`, d.Digest, d.Size)), append(digests, d.Digest)
		}
		o.Put("app", ocispec.MediaTypeImageManifest, fmt.Appendf(nil, `{"schemaVersion":2,"config":{"digest":"%s","size":7},"layers":[%s]}`, digests[0], strings.Join(layers, ",")), "wide")
		of := retention.Reference{Repository: mirrortest.App, Ref: "wide"}
		if done, err := m.Pin(t.Context(), of); err != nil || done.Blobs != 300 {
			t.Fatalf("%+v, %v", done, err)
		}
		if gone := slices.IndexFunc(digests, func(d retention.Digest) bool { return !m.Store.Has(t.Context(), d) }); gone >= 0 {
			t.Errorf("the layer %d is not there", gone)
		}
		if !m.IsComplete(t.Context(), of, false) {
			t.Error("it is not complete")
		}
		m.Store.Delete(t.Context(), digests[299], 9)
		if m.IsComplete(t.Context(), of, false) {
			t.Error("it is complete without its last layer")
		}
	})
}

// What is recorded is evicted as content is, by its own use.
func TestRecordsAreEvicted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		f := &folder{}
		m := mirrortest.New(t, o, func(opts *mirror.Options) {
			opts.Bounds.MaxBytes = 1 << 20
			opts.Rules.TagTTL = 1000 * time.Hour
			opts.Bounds.Folder = f
		})
		records := func() (n int64) {
			_ = m.Ledger.EachReferrers(retention.Repository{}, func(retention.Repository, retention.Digest, metadata.Referrers) { n += 1000 })
			return n
		}
		f.set(records)
		o.Image("app", "1", mirrortest.Bytes(1, 100<<10))
		image := m.PullImage(t, mirrortest.App, "1")
		listed := []retention.Descriptor{{MediaType: "x/y", Digest: digest.FromString("listed"), Size: 1}}
		for i := range 1000 {
			m.Ledger.RecordReferrers(mirrortest.App, digest.FromString(fmt.Sprint("other ", i)), metadata.Referrers{Manifests: listed, At: time.Now()}, nil)
		}
		m.Ledger.RecordReferrers(mirrortest.App, image, metadata.Referrers{Manifests: listed, At: time.Now()}, nil)
		time.Sleep(10 * time.Second) // they wake eviction themselves
		if n := m.Store.RecordBytes() + m.BytesOnDisk(t); n > 1<<20 {
			t.Errorf("%d bytes are stored after a moment", n)
		}
		time.Sleep(time.Minute)
		if _, err := m.Manifest(t.Context(), mirrortest.App, "1"); err != nil {
			t.Fatal(err)
		}
		f.set(records, cache.Aside{Name: "damaged/file", Bytes: 200 << 10})
		time.Sleep(time.Minute)
		if n := m.Store.RecordBytes() + m.Store.AsideBytes() + m.BytesOnDisk(t); n > 1<<20 {
			t.Errorf("%d bytes are stored", n)
		}
		if m.Store.RecordBytes() < 500_000 || !m.HasManifest(mirrortest.App, image) {
			t.Errorf("%d bytes of records are left, the image is there: %v", m.Store.RecordBytes(), m.HasManifest(mirrortest.App, image))
		}
		if len(f.Aside()) > 0 {
			t.Error("what was set aside is there")
		}
		if _, ok := m.Ledger.Referrers(mirrortest.App, image); !ok {
			t.Error("the referrers of an image that is cached were evicted")
		}
	})
}

// folder is what is stored beside content.
type folder struct {
	mu      sync.Mutex
	records func() int64
	aside   []cache.Aside
}

func (f *folder) set(records func() int64, aside ...cache.Aside) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.records, f.aside = records, aside
}

func (f *folder) RecordBytes() int64 {
	f.mu.Lock()
	records := f.records
	f.mu.Unlock()
	if records == nil {
		return 0
	}
	return records()
}

func (f *folder) AsideBytes() (n int64) {
	for _, file := range f.Aside() {
		n += file.Bytes
	}
	return n
}

func (f *folder) Aside() []cache.Aside {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.aside
}

func (f *folder) DropAside(string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.aside = nil
	return nil
}

func TestRecordsOfWhatIsNotThereAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, nil)
		_, layer := o.Image("app", "1", mirrortest.Bytes(1, 1000))
		image := m.PullImage(t, mirrortest.App, "1")
		gone, other := digest.FromString("gone"), retention.Repository{Upstream: "hub", Name: "other"}
		m.Ledger.PutMember(mirrortest.App, gone, metadata.Member{Size: 1})
		m.Ledger.UseBlob(gone)
		m.Ledger.UseManifest(mirrortest.App, gone)
		m.Ledger.PutTagList(other, []string{"1"})
		m.Ledger.PutTagList(mirrortest.App, []string{"1"})
		m.Ledger.SaveUses()
		w := m.Ledger.Watch()
		defer w.End()
		// These have come since, with a manifest, by a use and with a list.
		stored, used := digest.FromString("stored since"), digest.FromString("used since")
		for _, d := range []retention.Digest{stored, used} {
			m.Ledger.PutMember(mirrortest.App, d, metadata.Member{Size: 1})
		}
		m.Ledger.Lease(metadata.Manifest{Blobs: []retention.Descriptor{{Digest: stored}}}, digest.FromString("manifest"))()
		m.Ledger.UseBlob(used)
		m.Ledger.SaveUses()
		w.DropStale(metadata.Present{
			Repository: func(repo retention.Repository) bool { return repo == mirrortest.App },
			Manifest:   func(key string) bool { return key == metadata.Key(mirrortest.App, image.String()) },
			Blob:       func(d retention.Digest) bool { return d != gone && d != used },
			Member:     func(_ string, d retention.Digest) bool { return d != gone && d != stored && d != used },
		})
		if _, ok := m.Ledger.Member(mirrortest.App, gone); ok || m.Ledger.BlobUse(gone) != 0 || m.Ledger.ManifestUse(mirrortest.App, gone) != 0 {
			t.Error("what is not there is on record")
		}
		for _, d := range []retention.Digest{stored, used} {
			if _, ok := m.Ledger.Member(mirrortest.App, d); !ok {
				t.Error("what has come since was dropped")
			}
		}
		if m.Ledger.BlobUse(used) == 0 {
			t.Error("a use since was dropped")
		}
		if _, ok := m.Ledger.TagList(other); ok {
			t.Error("a repository that is not there has a list")
		}
		if _, ok := m.Ledger.TagList(mirrortest.App); !ok {
			t.Error("the list of a repository that is there was dropped")
		}
		if _, ok := m.Ledger.Member(mirrortest.App, layer.Digest); !ok || m.Ledger.BlobUse(layer.Digest) == 0 || m.Ledger.ManifestUse(mirrortest.App, image) == 0 {
			t.Error("what is there was dropped")
		}
	})
}
