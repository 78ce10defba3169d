package retention_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/retention"
)

// hookedRecords does something the first time that a bucket is scanned, which
// is in the middle of a snapshot, or before a flush.
type hookedRecords struct {
	cache.Records
	scanned func(cache.Bucket)
	flush   func() error
}

func (r hookedRecords) Scan(b cache.Bucket, prefix string, fn func(string, []byte) bool) error {
	err := r.Records.Scan(b, prefix, fn)
	if r.scanned != nil && prefix == "" {
		r.scanned(b)
	}
	return err
}

func (r hookedRecords) Flush(ctx context.Context) error {
	if r.flush != nil {
		if err := r.flush(); err != nil {
			return err
		}
	}
	return r.Records.Flush(ctx)
}

// duringEviction is a mirror that does something once, after the snapshot for
// an eviction was taken and before anything is removed.
func duringEviction(t *testing.T, o *mirrortest.Origin, bound int64, do func(m mirrortest.Mirror)) mirrortest.Mirror {
	var m mirrortest.Mirror
	var once sync.Once
	var ready bool
	m = mirrortest.New(t, o, func(opts *mirror.Options) {
		opts.Bounds.MaxBytes, opts.Rules.TagTTL = bound, 0
		opts.Records = hookedRecords{Records: opts.Records, scanned: func(b cache.Bucket) {
			if b == bucketTag && ready {
				once.Do(func() { do(m) })
			}
		}}
	})
	synctest.Wait()
	ready = true
	return m
}

func TestATagThatHasMovedStaysWhenItsOldImageIsEvicted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, func(opts *mirror.Options) { opts.Rules.TagTTL = 0 })
		old, _ := o.Image("app", "1", mirrortest.Bytes(1, 10))
		m.PullImage(t, mirrortest.App, "1")
		o.Image("app", "1", mirrortest.Bytes(2, 10))
		m.PullImage(t, mirrortest.App, "1")
		eviction := m.Ledger.Watch() // of the old image
		eviction.Forget(func(from metadata.Removal) { from.DropTagAt(mirrortest.App, "1", old.Digest) })
		eviction.End()
		o.FailAll()
		m.PullImage(t, mirrortest.App, "1")
	})
}

func TestABlobThatIsReferencedDuringAnEvictionStaysKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		shared := mirrortest.Bytes(1, 100<<10)
		o.Image("app", "old", shared)
		m := duringEviction(t, o, 250<<10, func(m mirrortest.Mirror) {
			o.Image("app", "new", shared)
			if _, err := m.Manifest(context.Background(), mirrortest.App, "new"); err != nil {
				t.Error(err)
			}
		})
		m.PullImage(t, mirrortest.App, "old")
		time.Sleep(time.Minute)
		for i := range 2 {
			o.Image("other", fmt.Sprint(i), mirrortest.Bytes(byte(2+i), 90<<10))
			m.PullImage(t, retention.Repository{Upstream: "hub", Name: "other"}, fmt.Sprint(i))
			time.Sleep(time.Minute)
		}
		mirrortest.Wait()
		o.Transcript()
		if err := m.Read(t.Context(), mirrortest.App, mirrortest.IndexAlgorithm.FromBytes(shared)); err != nil {
			t.Error(err)
		}
		mirrortest.WantTranscript(t, o)
	})
}

func TestAnImageThatIsPulledWhileItIsBeingEvictedStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		amd, _ := o.Image("app", "amd64", mirrortest.Bytes(1, 60<<10))
		o.Remove("app", "amd64")
		inner, _ := json.Marshal(ocispec.Index{MediaType: mirrortest.IndexType, Manifests: []retention.Descriptor{amd}})
		outer, _ := json.Marshal(ocispec.Index{MediaType: mirrortest.IndexType, Manifests: []retention.Descriptor{o.Put("app", mirrortest.IndexType, inner)}})
		index := o.Put("app", mirrortest.IndexType, outer, "1")
		m := duringEviction(t, o, 250<<10, func(m mirrortest.Mirror) {
			// The pulled manifest is deep below the root.
			if _, err := m.Manifest(context.Background(), mirrortest.App, amd.Digest.String()); err != nil {
				t.Error(err)
			}
		})
		m.PullImage(t, mirrortest.App, "1")
		time.Sleep(time.Minute)
		for i := range 3 {
			o.Image("other", fmt.Sprint(i), mirrortest.Bytes(byte(2+i), 90<<10))
			m.PullImage(t, retention.Repository{Upstream: "hub", Name: "other"}, fmt.Sprint(i))
			time.Sleep(time.Minute)
		}
		mirrortest.Wait()
		if !m.HasManifest(mirrortest.App, index.Digest) || !m.HasManifest(mirrortest.App, amd.Digest) {
			t.Error("it went from under the client that pulled it")
		}
	})
}

// A referrer that nobody has asked for may be prefetched in the moment in which
// its subject goes. It is then an image by itself, and the next to go.
func TestAReferrerThatComesWhileItsSubjectIsEvictedIsTheNextToGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		image, _ := o.Image("app", "1", mirrortest.Bytes(1, 10<<10))
		referrer := o.Attach(image, "application/vnd.example.signature")
		other, _ := o.Image("app", "2", mirrortest.Bytes(2, 10<<10))
		m := duringEviction(t, o, 1<<20, func(m mirrortest.Mirror) {
			if err := m.FetchManifest(context.Background(), mirrortest.App, referrer.Digest); err != nil {
				t.Error(err)
			}
		})
		for _, tag := range []string{"1", "2"} {
			m.PullImage(t, mirrortest.App, tag)
			time.Sleep(time.Second)
		}
		want := func(after string, of map[retention.Digest]bool) {
			t.Helper()
			if _, err := m.Mirror.Retention.Evict(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			for d, is := range of {
				if m.HasManifest(mirrortest.App, d) != is {
					t.Errorf("%s, %s is kept: %v", after, d, !is)
				}
			}
		}
		want("when the image has gone", map[retention.Digest]bool{image.Digest: false, referrer.Digest: true, other.Digest: true})
		want("then", map[retention.Digest]bool{referrer.Digest: false, other.Digest: true})
	})
}

func TestEvictedContentIsCachedAgainWhenItIsPulled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		memory := &testMemory{kept: map[retention.Digest][]byte{}}
		m := mirrortest.New(t, o, func(opts *mirror.Options) { opts.Bounds.MaxBytes = 250 << 10; opts.Memory = memory })
		small := mirrortest.Bytes(1, 10<<10)
		o.Image("app", "1", small)
		m.PullImage(t, mirrortest.App, "1")
		mirrortest.Wait()
		m.PullImage(t, mirrortest.App, "1") // from disk into memory
		for i := range 4 {
			time.Sleep(time.Minute)
			o.Image("other", fmt.Sprint(i), mirrortest.Bytes(byte(2+i), 90<<10))
			m.PullImage(t, retention.Repository{Upstream: "hub", Name: "other"}, fmt.Sprint(i))
		}
		mirrortest.Wait()
		if m.Store.Has(t.Context(), mirrortest.IndexAlgorithm.FromBytes(small)) {
			t.Fatal("it has not been evicted")
		}
		m.PullImage(t, mirrortest.App, "1")
		mirrortest.Wait()
		if !m.Store.Has(t.Context(), mirrortest.IndexAlgorithm.FromBytes(small)) {
			t.Error("it was served from memory, and a restart will lose it")
		}
	})
}

func TestAFailedFlushDoesNotLeaveAManifestWithoutItsBlobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		var order []retention.Digest
		full := false
		m := mirrortest.New(t, o, func(opts *mirror.Options) {
			opts.Bounds.MaxBytes = 250 << 10
			opts.Blobs = deletionOrder{opts.Blobs, &order}
			opts.Records = hookedRecords{Records: opts.Records, flush: func() error {
				if full {
					return fmt.Errorf("%w: %w", cache.ErrFull, syscall.ENOSPC)
				}
				return nil
			}}
		})
		one, _ := o.Image("app", "1", mirrortest.Bytes(1, 100<<10))
		m.PullImage(t, mirrortest.App, "1")
		mirrortest.Wait()
		full = true
		time.Sleep(time.Minute)
		for i := range 2 {
			o.Image("other", fmt.Sprint(i), mirrortest.Bytes(byte(2+i), 90<<10))
			m.PullImage(t, retention.Repository{Upstream: "hub", Name: "other"}, fmt.Sprint(i))
			mirrortest.Wait()
		}
		if len(order) == 0 || order[0] != one.Digest {
			t.Errorf("deleted were %v; the manifest %s has to go first", order, one.Digest)
		}
		if got := m.BytesOnDisk(t); got > 250<<10 {
			t.Errorf("%d bytes are cached", got)
		}
	})
}

type deletionOrder struct {
	cache.Blobs
	order *[]retention.Digest
}

func (b deletionOrder) Delete(ctx context.Context, d retention.Digest) error {
	*b.order = append(*b.order, d)
	return b.Blobs.Delete(ctx, d)
}

func TestAManifestInTwoRepositoriesIsCountedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		one, _ := o.Image("app", "1", mirrortest.Bytes(1, 10<<10))
		raw := o.Content["app 1"].Body
		o.Put("other", one.MediaType, raw)
		m := mirrortest.New(t, o, func(opts *mirror.Options) { opts.Blobs = slowCommits{opts.Blobs} })
		var clients sync.WaitGroup
		for _, repo := range []retention.Repository{mirrortest.App, {Upstream: "hub", Name: "other"}} {
			clients.Go(func() {
				if _, err := m.Manifest(t.Context(), repo, one.Digest.String()); err != nil {
					t.Error(err)
				}
			})
		}
		clients.Wait()
		mirrortest.Wait()
		m.WantUsageExact(t)
	})
}

// slowCommits takes a second for a commit.
type slowCommits struct{ cache.Blobs }

func (b slowCommits) Create(ctx context.Context, want retention.Descriptor) (cache.Draft, error) {
	draft, err := b.Blobs.Create(ctx, want)
	return slowCommit{draft}, err
}

type slowCommit struct{ cache.Draft }

func (d slowCommit) Commit() error {
	time.Sleep(time.Second)
	return d.Draft.Commit()
}

func TestACountIsExactWhileContentIsAdded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		walking := &slowWalk{begun: make(chan struct{}, 16)}
		m := mirrortest.New(t, o, func(opts *mirror.Options) {
			walking.Blobs = opts.Blobs
			opts.Blobs = walking
		})
		o.Image("app", "1", mirrortest.Bytes(1, 10<<10))
		m.PullImage(t, mirrortest.App, "1")
		mirrortest.Wait()
		o.Image("app", "2", mirrortest.Bytes(2, 10<<10))
		walking.slow.Lock()
		for len(walking.begun) > 0 {
			<-walking.begun
		}
		listed := make(chan error)
		go func() {
			_, err := m.Inventory(context.Background())
			listed <- err
		}()
		<-walking.begun
		m.PullImage(t, mirrortest.App, "2")
		walking.slow.Unlock()
		if err := <-listed; err != nil {
			t.Error(err)
		}
		mirrortest.Wait()
		m.WantUsageExact(t)
	})
}

// slowWalk begins a walk, and continues when it is allowed to.
type slowWalk struct {
	cache.Blobs
	slow  sync.Mutex
	begun chan struct{}
}

func (b *slowWalk) Walk(ctx context.Context, fn func(d retention.Digest, size int64) bool) error {
	b.begun <- struct{}{}
	b.slow.Lock()
	defer b.slow.Unlock()
	return b.Blobs.Walk(ctx, fn)
}

func TestAScrubFindsFilesOfAWrongSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		var wrong wrongSize
		m := mirrortest.New(t, o, func(opts *mirror.Options) {
			wrong = wrongSize{Blobs: opts.Blobs, digest: new(retention.Digest)}
			opts.Blobs = wrong
		})
		_, layer := o.Image("app", "1", mirrortest.Bytes(1, 100<<10))
		m.PullImage(t, mirrortest.App, "1")
		mirrortest.Wait()
		*wrong.digest = layer.Digest
		s, err := m.Scrub(t.Context(), 0, nil)
		if err != nil || len(s.Damaged) != 1 || s.Damaged[0] != layer.Digest {
			t.Errorf("scrubbed: %+v, %v", s, err)
		}
		m.WantUsageExact(t)
	})
}

// wrongSize is a blob store in which one file is truncated, as cache/disk
// reports it.
type wrongSize struct {
	cache.Blobs
	digest *retention.Digest
}

func (b wrongSize) Verify(ctx context.Context, d retention.Digest, pace func(int) error) (int64, error) {
	if d != *b.digest {
		return b.Blobs.Verify(ctx, d, pace)
	}
	err := b.Blobs.Delete(ctx, d)
	return 10, errors.Join(cache.ErrMismatch, cache.ErrNotFound, err)
}

func TestRequestsForMissingContentLeaveNoRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, nil)
		for i := range 10 {
			d := mirrortest.IndexAlgorithm.FromString(fmt.Sprint(i))
			_ = m.Read(t.Context(), mirrortest.App, d)
			_, _ = m.Manifest(t.Context(), mirrortest.App, d.String())
		}
		m.Ledger.SaveUses()
		err := m.Records.Scan(bucketUsed, "", func(key string, _ []byte) bool {
			t.Errorf("the use of %q is on record", strings.ReplaceAll(key, "\x00", " "))
			return true
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func TestADeeplyNestedImageIsEvictedAsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, func(opts *mirror.Options) { opts.Bounds.MaxBytes = 400 << 10 })
		inner, _ := o.Image("app", "inner", mirrortest.Bytes(1, 50<<10))
		o.Remove("app", "inner")
		for i := range 500 {
			raw, _ := json.Marshal(ocispec.Index{
				MediaType: mirrortest.IndexType, Manifests: []retention.Descriptor{inner}, Annotations: map[string]string{"depth": fmt.Sprint(i)},
			})
			inner = o.Put("app", mirrortest.IndexType, raw)
		}
		o.Put("app", mirrortest.IndexType, o.Content["app "+inner.Digest.String()].Body, "1")
		m.PullImage(t, mirrortest.App, "1")
		mirrortest.Wait()
		for i := range 4 {
			time.Sleep(time.Minute)
			o.Image("other", fmt.Sprint(i), mirrortest.Bytes(byte(2+i), 90<<10))
			m.PullImage(t, retention.Repository{Upstream: "hub", Name: "other"}, fmt.Sprint(i))
		}
		mirrortest.Wait()
		err := m.Records.Scan(bucketManifest, metadata.Key(mirrortest.App, ""), func(key string, _ []byte) bool {
			t.Errorf("%q is still cached", strings.ReplaceAll(key, "\x00", " "))
			return false
		})
		if err != nil {
			t.Error(err)
		}
		m.WantUsageExact(t)
	})
}

func TestAManifestThatIsBeingRecordedIsNotEvictedAsUnreferenced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		one, _ := o.Image("app", "1", mirrortest.Bytes(1, 10))
		var m mirrortest.Mirror
		m = mirrortest.New(t, o, func(opts *mirror.Options) {
			opts.Blobs = afterCommit{opts.Blobs, func() {
				if _, err := m.Mirror.Retention.Evict(context.Background(), 1<<40); err != nil {
					t.Error(err)
				}
			}}
		})
		if _, err := m.Manifest(t.Context(), mirrortest.App, "1"); err != nil {
			t.Fatal(err)
		}
		if !m.Store.Has(t.Context(), one.Digest) {
			t.Error("it is on record, and its bytes are gone")
		}
	})
}

// afterCommit is a blob store that does something as soon as content is
// published.
type afterCommit struct {
	cache.Blobs
	do func()
}

func (b afterCommit) Create(ctx context.Context, want retention.Descriptor) (cache.Draft, error) {
	draft, err := b.Blobs.Create(ctx, want)
	return committed{draft, b.do}, err
}

type committed struct {
	cache.Draft
	do func()
}

func (d committed) Commit() error {
	err := d.Draft.Commit()
	d.do()
	return err
}

func TestAFailedSnapshotIsAnErrorAndEndsItsWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		var broken atomic.Bool
		m := mirrortest.New(t, o, func(opts *mirror.Options) {
			opts.Blobs = brokenWalk{opts.Blobs, &broken}
			opts.Bounds.MaxBytes = 150 << 10
		})
		o.Image("app", "1", mirrortest.Bytes(1, 100<<10))
		o.Image("app", "2", mirrortest.Bytes(2, 100<<10))
		m.PullImage(t, mirrortest.App, "1")
		mirrortest.Wait()

		broken.Store(true)
		if _, err := m.Inventory(t.Context()); !errors.Is(err, errWalk) {
			t.Errorf("an inventory says %v, want %v", err, errWalk)
		}
		if _, err := m.Purge(t.Context(), retention.Target{Repository: mirrortest.App}, false); !errors.Is(err, errWalk) {
			t.Errorf("a purge says %v, want %v", err, errWalk)
		}
		m.PullImage(t, mirrortest.App, "2") // there is no room, and none can be made
		time.Sleep(2 * retention.CheckInterval)
		synctest.Wait()
		if m.Ledger.IsWatched() {
			t.Error("what comes is still watched")
		}

		broken.Store(false)
		time.Sleep(2 * retention.CheckInterval)
		m.PullImage(t, mirrortest.App, "2")
		mirrortest.Wait()
		list, err := m.Inventory(t.Context())
		if err != nil || len(list.Images) != 1 || !list.Images[0].Whole || !slices.Contains(list.Images[0].Tags, "2") {
			t.Errorf("%+v is cached, %v, want app:2 alone and whole", list.Images, err)
		}
		m.WantUsageExact(t)
	})
}

var errWalk = errors.New("input/output error")

// brokenWalk is a blob store that cannot list its directories.
type brokenWalk struct {
	cache.Blobs
	broken *atomic.Bool
}

func (b brokenWalk) Walk(ctx context.Context, fn func(d retention.Digest, size int64) bool) error {
	if b.broken.Load() {
		return errWalk
	}
	return b.Blobs.Walk(ctx, fn)
}
