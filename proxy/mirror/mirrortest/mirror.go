package mirrortest

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/proxy/store"
	"github.com/entrepot/entrepot/upstream"
)

// The types that every test of a mirror uses.
type (
	Digest     = metadata.Digest
	Descriptor = metadata.Descriptor
	Repository = metadata.Repository
)

const (
	// IndexType is the media type of an index.
	IndexType = ocispec.MediaTypeImageIndex
	// IndexAlgorithm is the digest algorithm of generated indexes.
	IndexAlgorithm = digest.Canonical
)

// App is the repository that most tests use.
var App = Repository{Upstream: "hub", Name: "app"}

// Mirror is a mirror over one origin called "hub", with the methods for clients
// and for operators.
type Mirror struct {
	*pull.Puller
	mirror.Cache
	*mirror.Mirror
	Origin *Origin
	Disk   *memory.Cache
	// The options it was made with; change may have wrapped any of these.
	Blobs   cache.Blobs
	Records cache.Records
	Memory  store.Memory
	Rules   pull.Rules
}

// New starts a mirror. It does not prefetch; see [Mirror.Prefetch].
func New(t testing.TB, o *Origin, change func(*mirror.Options)) Mirror {
	t.Helper()
	disk := memory.New()
	content, err := memory.NewContent(0)
	if err != nil {
		t.Fatal(err)
	}
	opts := mirror.Options{
		Blobs: disk.Blobs(), Records: disk.Records(), Memory: content,
		Upstreams: []pull.Upstream{{Name: "hub", Endpoints: []upstream.Endpoint{o}}},
		Rules: pull.Rules{
			TagTTL:       time.Minute,
			ReferrersTTL: 5 * time.Minute,
			NegativeTTL:  30 * time.Second,
			MaxWait:      2 * time.Second,
		},
		Logger: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&opts)
	}
	m := mirror.New(opts)
	m.Start()
	t.Cleanup(m.Close)
	return Mirror{m.Puller, m.Cache(), m, o, disk, opts.Blobs, opts.Records, opts.Memory, opts.Rules}
}

// Wait waits until all goroutines are blocked.
func Wait() { synctest.Wait() }

// PullImage pulls an image as a runtime does: the tag, the child manifests, the
// blobs.
func (m Mirror) PullImage(t *testing.T, repo Repository, tag string) Digest {
	t.Helper()
	root, err := m.Manifest(t.Context(), repo, tag)
	if err != nil {
		t.Fatalf("pull %s: %v", tag, err)
	}
	for queue := []pull.Manifest{root}; len(queue) > 0; queue = queue[1:] {
		children, blobs, _, err := referrers.Names(queue[0].Descriptor.MediaType, referrers.Parse(queue[0].Bytes))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range children {
			child, err := m.Manifest(t.Context(), repo, c.Digest.String())
			if err != nil {
				t.Fatalf("pull %s: %v", tag, err)
			}
			queue = append(queue, child)
		}
		for _, b := range blobs {
			if err := m.Read(t.Context(), repo, b.Digest); err != nil {
				t.Fatalf("pull %s: %v", tag, err)
			}
		}
	}
	return root.Descriptor.Digest
}

// Read reads a blob to its end and checks its digest.
func (m Mirror) Read(ctx context.Context, repo Repository, d Digest) error {
	b, err := m.Blob(ctx, repo, d, pull.Want{})
	if err != nil {
		return err
	}
	defer b.Close()
	hash := d.Algorithm().Hash()
	if _, err := b.WriteRange(ctx, hash, 0, -1); err != nil {
		return err
	}
	if got := Digest(fmt.Sprintf("%s:%x", d.Algorithm(), hash.Sum(nil))); got != d {
		return fmt.Errorf("the bytes of %s have the digest %s", d, got)
	}
	return nil
}

// BytesOnDisk is the size of the content that is in the cache, with unfinished
// downloads that were kept.
func (m Mirror) BytesOnDisk(t *testing.T) (total int64) {
	t.Helper()
	if err := m.Blobs.Walk(t.Context(), func(_ Digest, size int64) bool { total += size; return true }); err != nil {
		t.Fatal(err)
	}
	for _, kept := range m.Blobs.AllKept() {
		total += kept.Weight
	}
	return total
}

// HasManifest says whether a manifest is on record.
func (m Mirror) HasManifest(repo Repository, d Digest) bool {
	_, ok := m.Ledger.Manifest(repo, d)
	return ok
}

// Fetch reads a whole blob as a client would.
func (m Mirror) Fetch(repo Repository, d Digest) ([]byte, error) {
	b, err := m.Blob(context.Background(), repo, d, pull.Want{})
	if err != nil {
		return nil, err
	}
	defer b.Close()
	var got bytes.Buffer
	_, err = b.WriteRange(context.Background(), &got, 0, -1)
	return got.Bytes(), err
}

// HasContent says whether content is on disk.
func (m Mirror) HasContent(d Digest) bool {
	_, err := m.Blobs.Stat(context.Background(), d)
	return err == nil
}

// WantUsageExact checks that the store counts exactly what is in the cache.
func (m Mirror) WantUsageExact(t *testing.T) {
	t.Helper()
	counted := m.Mirror.Store.State().Used
	if stored := m.BytesOnDisk(t); counted != stored {
		t.Errorf("%d bytes are stored, and %d are counted", stored, counted)
	}
}

// CountRecords is the number of records in a bucket.
func (m Mirror) CountRecords(t *testing.T, b cache.Bucket) (n int) {
	t.Helper()
	if err := m.Records.Scan(b, "", func(string, []byte) bool { n++; return true }); err != nil {
		t.Fatal(err)
	}
	return n
}

// PullPlatform pulls one platform by a tag as containerd does: without
// requesting referrers or attestations.
func (m Mirror) PullPlatform(t *testing.T, a Attested, tag string, platform int) {
	t.Helper()
	for _, ref := range []string{tag, a.Index.Digest.String(), a.Platforms[platform].Digest.String()} {
		if _, err := m.Manifest(t.Context(), App, ref); err != nil {
			t.Fatal(err)
		}
	}
}

// Prefetch runs the mirror's Prefetcher until the test ends or end is called.
func (m Mirror) Prefetch(t *testing.T) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.Prefetcher.Run(ctx)
	}()
	end = func() {
		cancel()
		<-done
	}
	t.Cleanup(end)
	return end
}

// Missing is what another pull may request and is not cached, in the form that
// the inventory uses.
func (m Mirror) Missing(t *testing.T) []string {
	t.Helper()
	list, err := m.Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, image := range list.Images {
		all = append(all, image.Unlearnt...)
	}
	return all
}

// BlobsOf are the blobs that a cached manifest references.
func (m Mirror) BlobsOf(t *testing.T, d Digest) (all []Digest) {
	t.Helper()
	rec, ok := m.Ledger.Manifest(App, d)
	if !ok {
		t.Fatalf("%s is not cached", d)
	}
	for _, b := range rec.Blobs {
		all = append(all, b.Digest)
	}
	return all
}

// Types are the artifact types of referrers, sorted.
func Types(r pull.Referrers) []string {
	var all []string
	for _, d := range r.Manifests {
		all = append(all, d.ArtifactType)
	}
	slices.Sort(all)
	return all
}
