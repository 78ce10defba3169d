package pull

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
	"github.com/entrepot/entrepot/upstream"
)

// hookedRecords do something the first time that one kind of record is read
// through, which is in the middle of a picture, or before a flush.
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

// duringEviction is a mirror that does something once, after a picture for an
// eviction has been taken and before anything goes.
func duringEviction(t *testing.T, o *origin, bound int64, do func(m mirror)) mirror {
	var m mirror
	var once sync.Once
	var ready bool
	m = newMirror(t, o, func(opts *Options) {
		opts.Room.MaxBytes, opts.TagTTL = bound, 0
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

// unplug makes every request fail from now on.
func (o *origin) unplug() { o.fail("*", upstream.ErrRefused) }

// wantCounted checks that what is counted is what lies in the cache.
func (m mirror) wantCounted(t *testing.T) {
	t.Helper()
	m.evictor.mu.Lock()
	counted := m.evictor.kept
	m.evictor.mu.Unlock()
	if kept := m.bytesKept(t); counted != kept {
		t.Errorf("%d bytes are kept, and %d are counted", kept, counted)
	}
}

func TestATagThatHasMovedOnStaysWhenItsOldImageGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		m := newMirror(t, o, func(opts *Options) { opts.TagTTL = 0 })
		old, _ := o.image("app", "1", bytesOf(1, 10))
		m.pullWhole(t, hubApp, "1")
		o.image("app", "1", bytesOf(2, 10))
		m.pullWhole(t, hubApp, "1")
		eviction := m.meta.Watch() // of the old image
		eviction.ForgetAnyway(func(from metadata.Removal) { from.TagAt(hubApp, "1", old.Digest) })
		eviction.End()
		o.unplug()
		m.pullWhole(t, hubApp, "1")
	})
}

func TestABlobThatIsNamedWhileItsImageGoesStaysKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		shared := bytesOf(1, 100<<10)
		o.image("app", "old", shared)
		m := duringEviction(t, o, 250<<10, func(m mirror) {
			o.image("app", "new", shared)
			if _, err := m.Manifest(context.Background(), hubApp, "new"); err != nil {
				t.Error(err)
			}
		})
		m.pullWhole(t, hubApp, "old")
		time.Sleep(time.Minute)
		for i := range 2 {
			o.image("other", fmt.Sprint(i), bytesOf(byte(2+i), 90<<10))
			m.pullWhole(t, Repository{Upstream: "hub", Name: "other"}, fmt.Sprint(i))
			time.Sleep(time.Minute)
		}
		settleDown()
		o.transcript()
		if err := m.read(t.Context(), hubApp, indexAlgorithm.FromBytes(shared)); err != nil {
			t.Error(err)
		}
		wantTranscript(t, o)
	})
}

func TestAnImageThatIsPulledWhileItWasToGoStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		amd, _ := o.image("app", "amd64", bytesOf(1, 60<<10))
		o.remove("app", "amd64")
		inner, _ := json.Marshal(ocispec.Index{MediaType: indexType, Manifests: []Descriptor{amd}})
		outer, _ := json.Marshal(ocispec.Index{MediaType: indexType, Manifests: []Descriptor{o.put("app", indexType, inner)}})
		index := o.put("app", indexType, outer, "1")
		m := duringEviction(t, o, 250<<10, func(m mirror) {
			// What is pulled is deep below the root.
			if _, err := m.Manifest(context.Background(), hubApp, amd.Digest.String()); err != nil {
				t.Error(err)
			}
		})
		m.pullWhole(t, hubApp, "1")
		time.Sleep(time.Minute)
		for i := range 3 {
			o.image("other", fmt.Sprint(i), bytesOf(byte(2+i), 90<<10))
			m.pullWhole(t, Repository{Upstream: "hub", Name: "other"}, fmt.Sprint(i))
			time.Sleep(time.Minute)
		}
		settleDown()
		if !m.keepsManifest(hubApp, index.Digest) || !m.keepsManifest(hubApp, amd.Digest) {
			t.Error("it went from under the client that pulled it")
		}
	})
}

func TestWhatWasEvictedIsKeptAgainWhenItComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		memory := &recollection{kept: map[Digest][]byte{}}
		m := newMirror(t, o, func(opts *Options) { opts.Room.MaxBytes = 250 << 10; opts.Memory = memory })
		small := bytesOf(1, 10<<10)
		o.image("app", "1", small)
		m.pullWhole(t, hubApp, "1")
		settleDown()
		m.pullWhole(t, hubApp, "1") // from disk into memory
		for i := range 4 {
			time.Sleep(time.Minute)
			o.image("other", fmt.Sprint(i), bytesOf(byte(2+i), 90<<10))
			m.pullWhole(t, Repository{Upstream: "hub", Name: "other"}, fmt.Sprint(i))
		}
		settleDown()
		if m.has(t.Context(), indexAlgorithm.FromBytes(small)) {
			t.Fatal("it has not been evicted")
		}
		m.pullWhole(t, hubApp, "1")
		settleDown()
		if !m.has(t.Context(), indexAlgorithm.FromBytes(small)) {
			t.Error("it was served from memory, and a restart will lose it")
		}
	})
}

func TestARefusedFlushDoesNotLeaveAManifestWithoutItsBlobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		var order []Digest
		full := false
		m := newMirror(t, o, func(opts *Options) {
			opts.Room.MaxBytes = 250 << 10
			opts.Blobs = deletionOrder{opts.Blobs, &order}
			opts.Records = hookedRecords{Records: opts.Records, flush: func() error {
				if full {
					return fmt.Errorf("%w: %w", cache.ErrFull, syscall.ENOSPC)
				}
				return nil
			}}
		})
		one, _ := o.image("app", "1", bytesOf(1, 100<<10))
		m.pullWhole(t, hubApp, "1")
		settleDown()
		full = true
		time.Sleep(time.Minute)
		for i := range 2 {
			o.image("other", fmt.Sprint(i), bytesOf(byte(2+i), 90<<10))
			m.pullWhole(t, Repository{Upstream: "hub", Name: "other"}, fmt.Sprint(i))
			settleDown()
		}
		if len(order) == 0 || order[0] != one.Digest {
			t.Errorf("deleted were %v; the manifest %s has to go first", order, one.Digest)
		}
		if got := m.bytesKept(t); got > 250<<10 {
			t.Errorf("%d bytes are kept", got)
		}
	})
}

type deletionOrder struct {
	cache.Blobs
	order *[]Digest
}

func (b deletionOrder) Delete(ctx context.Context, d Digest) error {
	*b.order = append(*b.order, d)
	return b.Blobs.Delete(ctx, d)
}

func TestTwoRepositoriesWithOneManifestAreCountedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		one, _ := o.image("app", "1", bytesOf(1, 10<<10))
		raw := o.content["app 1"].body
		o.put("other", one.MediaType, raw)
		m := newMirror(t, o, func(opts *Options) { opts.Blobs = slowCommits{opts.Blobs} })
		var clients sync.WaitGroup
		for _, repo := range []Repository{hubApp, {Upstream: "hub", Name: "other"}} {
			clients.Go(func() {
				if _, err := m.Manifest(t.Context(), repo, one.Digest.String()); err != nil {
					t.Error(err)
				}
			})
		}
		clients.Wait()
		settleDown()
		m.wantCounted(t)
	})
}

// slowCommits take a second.
type slowCommits struct{ cache.Blobs }

func (b slowCommits) Create(ctx context.Context, want Descriptor) (cache.Draft, error) {
	draft, err := b.Blobs.Create(ctx, want)
	return slowCommit{draft}, err
}

type slowCommit struct{ cache.Draft }

func (d slowCommit) Commit() error {
	time.Sleep(time.Second)
	return d.Draft.Commit()
}

func TestACountUnderWhichContentComesIsExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		walking := &slowWalk{begun: make(chan struct{}, 16)}
		m := newMirror(t, o, func(opts *Options) {
			walking.Blobs = opts.Blobs
			opts.Blobs = walking
		})
		o.image("app", "1", bytesOf(1, 10<<10))
		m.pullWhole(t, hubApp, "1")
		settleDown()
		o.image("app", "2", bytesOf(2, 10<<10))
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
		m.pullWhole(t, hubApp, "2")
		walking.slow.Unlock()
		if err := <-listed; err != nil {
			t.Error(err)
		}
		settleDown()
		m.wantCounted(t)
	})
}

// slowWalk begins to walk, and goes on once it may.
type slowWalk struct {
	cache.Blobs
	slow  sync.Mutex
	begun chan struct{}
}

func (b *slowWalk) Walk(ctx context.Context, fn func(d Digest, size int64) bool) error {
	b.begun <- struct{}{}
	b.slow.Lock()
	defer b.slow.Unlock()
	return b.Blobs.Walk(ctx, fn)
}

func TestAScrubCountsFilesOfAWrongSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		var wrong wrongSize
		m := newMirror(t, o, func(opts *Options) {
			wrong = wrongSize{Blobs: opts.Blobs, digest: new(Digest)}
			opts.Blobs = wrong
		})
		_, layer := o.image("app", "1", bytesOf(1, 100<<10))
		m.pullWhole(t, hubApp, "1")
		settleDown()
		*wrong.digest = layer.Digest
		s, err := m.Scrub(t.Context(), 0, nil)
		if err != nil || len(s.Damaged) != 1 || s.Damaged[0] != layer.Digest {
			t.Errorf("scrubbed: %+v, %v", s, err)
		}
		m.wantCounted(t)
	})
}

// wrongSize are blobs of which one has lost a part, as cache/disk finds it.
type wrongSize struct {
	cache.Blobs
	digest *Digest
}

func (b wrongSize) Verify(ctx context.Context, d Digest, pace func(int) error) (int64, error) {
	if d != *b.digest {
		return b.Blobs.Verify(ctx, d, pace)
	}
	err := b.Blobs.Delete(ctx, d)
	return 10, errors.Join(cache.ErrMismatch, cache.ErrNotFound, err)
}

func TestAKeptBlobThatCannotBeOpenedIsFetchedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		var broken brokenOpen
		m := newMirror(t, o, func(opts *Options) {
			broken = brokenOpen{opts.Blobs, new(bool)}
			opts.Blobs = broken
		})
		_, layer := o.image("app", "1", bytesOf(1, 100<<10))
		m.pullWhole(t, hubApp, "1")
		settleDown()
		*broken.broken = true
		o.transcript()
		if err := m.read(t.Context(), hubApp, layer.Digest); err != nil {
			t.Error(err)
		}
		wantTranscript(t, o, "GET blob app "+short(layer.Digest.String()))
	})
}

// brokenOpen are blobs that are there and can't be opened, as when the process
// has too many files open.
type brokenOpen struct {
	cache.Blobs
	broken *bool
}

func (b brokenOpen) Open(ctx context.Context, d Digest) (cache.Kept, error) {
	if *b.broken {
		return nil, fmt.Errorf("open %s: %w", d, syscall.EMFILE)
	}
	return b.Blobs.Open(ctx, d)
}

func TestAskingForWhatIsNotThereLeavesNoRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		m := newMirror(t, o, nil)
		for i := range 10 {
			d := indexAlgorithm.FromString(fmt.Sprint(i))
			_ = m.read(t.Context(), hubApp, d)
			_, _ = m.Manifest(t.Context(), hubApp, d.String())
		}
		m.meta.SaveUses()
		err := m.opts.Records.Scan(bucketUsed, "", func(key string, _ []byte) bool {
			t.Errorf("the use of %q is on record", strings.ReplaceAll(key, "\x00", " "))
			return true
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func TestAPinnedImageThatDoesNotFitIsNotDownloadedAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		m := newMirror(t, o, func(opts *Options) { opts.Room.MaxBytes = 50 << 10 })
		_, layer := o.image("app", "1", bytesOf(1, 100<<10))
		if _, err := m.Pin(t.Context(), Reference{Repository: hubApp, Ref: "1"}); !errors.Is(err, cache.ErrFull) {
			t.Errorf("pin: %v", err)
		}
		o.transcript()
		time.Sleep(12 * time.Hour)
		settleDown()
		line := "GET blob app " + short(layer.Digest.String())
		asked := slices.DeleteFunc(o.transcript(), func(asked string) bool { return asked != line })
		if len(asked) == 0 || len(asked) > 12 {
			t.Errorf("in twelve hours it was downloaded %d times", len(asked))
		}
	})
}

func TestAManifestIsNewerWordThanAnAbsence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		m := newMirror(t, o, nil)
		content := bytesOf(1, 10<<10)
		if err := m.read(t.Context(), hubApp, indexAlgorithm.FromBytes(content)); !errors.Is(err, upstream.ErrNotFound) {
			t.Errorf("before it is there: %v", err)
		}
		o.image("app", "1", content)
		m.pullWhole(t, hubApp, "1")
	})
}

func TestAnImageNestedDeeplyGoesAsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		m := newMirror(t, o, func(opts *Options) { opts.Room.MaxBytes = 400 << 10 })
		inner, _ := o.image("app", "inner", bytesOf(1, 50<<10))
		o.remove("app", "inner")
		for i := range 500 {
			raw, _ := json.Marshal(ocispec.Index{
				MediaType: indexType, Manifests: []Descriptor{inner}, Annotations: map[string]string{"depth": fmt.Sprint(i)},
			})
			inner = o.put("app", indexType, raw)
		}
		o.put("app", indexType, o.content["app "+inner.Digest.String()].body, "1")
		m.pullWhole(t, hubApp, "1")
		settleDown()
		for i := range 4 {
			time.Sleep(time.Minute)
			o.image("other", fmt.Sprint(i), bytesOf(byte(2+i), 90<<10))
			m.pullWhole(t, Repository{Upstream: "hub", Name: "other"}, fmt.Sprint(i))
		}
		settleDown()
		err := m.opts.Records.Scan(bucketManifest, metadata.Key(hubApp, ""), func(key string, _ []byte) bool {
			t.Errorf("%q is still kept", strings.ReplaceAll(key, "\x00", " "))
			return false
		})
		if err != nil {
			t.Error(err)
		}
		m.wantCounted(t)
	})
}

func TestAManifestOnItsWayToTheRecordsIsNotTakenForAStray(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		one, _ := o.image("app", "1", bytesOf(1, 10))
		var m mirror
		m = newMirror(t, o, func(opts *Options) {
			opts.Blobs = afterCommit{opts.Blobs, func() {
				if _, err := m.evict(context.Background(), 1<<40); err != nil {
					t.Error(err)
				}
			}}
		})
		if _, err := m.Manifest(t.Context(), hubApp, "1"); err != nil {
			t.Fatal(err)
		}
		if !m.has(t.Context(), one.Digest) {
			t.Error("it is on record, and its bytes are gone")
		}
	})
}

// afterCommit are blobs with something to do as soon as content is published.
type afterCommit struct {
	cache.Blobs
	do func()
}

func (b afterCommit) Create(ctx context.Context, want Descriptor) (cache.Draft, error) {
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

func TestWhatCannotBeReadThroughIsAnErrorAndNothingIsWatchedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		var broken atomic.Bool
		m := newMirror(t, o, func(opts *Options) {
			opts.Blobs = brokenWalk{opts.Blobs, &broken}
			opts.Room.MaxBytes = 150 << 10
		})
		o.image("app", "1", bytesOf(1, 100<<10))
		o.image("app", "2", bytesOf(2, 100<<10))
		m.pullWhole(t, hubApp, "1")
		settleDown()

		broken.Store(true)
		if _, err := m.Inventory(t.Context()); !errors.Is(err, errWalk) {
			t.Errorf("an inventory says %v, want %v", err, errWalk)
		}
		if _, err := m.Purge(t.Context(), Target{Repository: hubApp}, false); !errors.Is(err, errWalk) {
			t.Errorf("a purge says %v, want %v", err, errWalk)
		}
		m.pullWhole(t, hubApp, "2") // there is no room, and none can be made
		time.Sleep(2 * lookAround)
		synctest.Wait()
		if m.meta.IsWatched() {
			t.Error("what comes is still watched")
		}

		broken.Store(false)
		time.Sleep(2 * lookAround)
		m.pullWhole(t, hubApp, "2")
		settleDown()
		list, err := m.Inventory(t.Context())
		if err != nil || len(list.Images) != 1 || !list.Images[0].Whole || !slices.Contains(list.Images[0].Tags, "2") {
			t.Errorf("%+v is kept, %v, want app:2 alone and whole", list.Images, err)
		}
		m.wantCounted(t)
	})
}

var errWalk = errors.New("input/output error")

// brokenWalk has a disk that cannot list its folders.
type brokenWalk struct {
	cache.Blobs
	broken *atomic.Bool
}

func (b brokenWalk) Walk(ctx context.Context, fn func(d Digest, size int64) bool) error {
	if b.broken.Load() {
		return errWalk
	}
	return b.Blobs.Walk(ctx, fn)
}
