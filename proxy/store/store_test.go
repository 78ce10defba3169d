package store_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/cachetest"
	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/proxy/store"
)

func TestMain(m *testing.M) {
	cachetest.InMemory()
	goleak.VerifyTestMain(m)
}

// testStore is a store over a cache, and the usage that it reported last.
type testStore struct {
	*store.Store
	blobs   cache.Blobs
	content testMemory
	bytes   atomic.Int64
}

func newStore(t *testing.T, blobs cache.Blobs, bounds store.Bounds) *testStore {
	t.Helper()
	content := testMemory{}
	k := &testStore{blobs: blobs, content: content}
	k.Store = store.New(store.Options{Blobs: blobs, Memory: content, Bounds: bounds, Usage: k.bytes.Store, Logger: slog.New(slog.DiscardHandler)})
	return k
}

// testMemory is memory that drops nothing.
type testMemory map[store.Digest][]byte

func (r testMemory) Get(d store.Digest) ([]byte, bool)  { content, ok := r[d]; return content, ok }
func (r testMemory) Put(d store.Digest, content []byte) { r[d] = content }
func (r testMemory) Delete(d store.Digest)              { delete(r, d) }

func inMemory(t *testing.T) cache.Blobs {
	t.Helper()
	return memory.New().Blobs()
}

func bytesOf(seed byte, n int) ([]byte, store.Descriptor) {
	content := bytes.Repeat([]byte{seed}, n)
	return content, store.Descriptor{Digest: digest.FromBytes(content), Size: int64(n)}
}

// publish stores content as a download does.
func (k *testStore) publish(ctx context.Context, content []byte, d store.Descriptor) error {
	draft, err := k.Create(ctx, d)
	if err != nil {
		return err
	}
	defer draft.Close()
	if _, err := draft.Write(content); err != nil {
		return err
	}
	return k.Publish(ctx, d.Digest, d.Size, draft)
}

func (k *testStore) wantUsageExact(t *testing.T) {
	t.Helper()
	var there int64
	if err := k.Walk(t.Context(), func(_ store.Digest, size int64) bool { there += k.Weight(size); return true }); err != nil {
		t.Fatal(err)
	}
	for _, kept := range k.AllKept() {
		there += kept.Weight
	}
	if counted := k.State().Used; counted != there || k.bytes.Load() != there {
		t.Errorf("%d bytes are there, %d are counted, and %d were reported", there, counted, k.bytes.Load())
	}
}

func TestDamagedContentIsNotReturned(t *testing.T) {
	for name, size := range map[string]int{"small": 100, "large": 100 << 10} {
		t.Run(name, func(t *testing.T) {
			files := memory.New()
			k := newStore(t, files.Blobs(), store.Bounds{})
			if err := k.Count(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			content, d := bytesOf(1, size)
			if err := k.publish(t.Context(), content, d); err != nil {
				t.Fatal(err)
			}
			before := k.State().Used
			files.Damage(d.Digest)
			got, file, err := k.Open(t.Context(), d.Digest)
			if file != nil {
				// The reader of a large file checks it, piece by piece.
				defer file.Close()
				if _, err = file.Check(t.Context(), 0, d.Size); errors.Is(err, cache.ErrQuarantined) {
					k.Quarantined(d.Size)
				}
			}
			if !errors.Is(err, cache.ErrMismatch) || got != nil {
				t.Errorf("%d bytes and %v", len(got), err)
			}
			if k.Has(t.Context(), d.Digest) {
				t.Error("it is not quarantined")
			}
			if after := k.State().Used; after != before-k.Weight(d.Size) {
				t.Errorf("%d bytes are counted, and %d before", after, before)
			}
			if _, ok := k.Read(t.Context(), d.Digest, 1<<20); ok {
				t.Error("it is handed out as a manifest")
			}
		})
	}
}

func TestSmallContentIsHeldInMemoryAndLargeContentIsNot(t *testing.T) {
	k := newStore(t, inMemory(t), store.Bounds{})
	small, s := bytesOf(1, 64<<10)
	large, l := bytesOf(2, 64<<10+1)
	for _, c := range []struct {
		content []byte
		d       store.Descriptor
	}{{small, s}, {large, l}} {
		if err := k.publish(t.Context(), c.content, c.d); err != nil && !errors.Is(err, cache.ErrFull) {
			t.Fatal(err)
		}
	}
	if got, file, err := k.Open(t.Context(), s.Digest); err != nil || file != nil || !bytes.Equal(got, small) {
		t.Errorf("small: %d bytes, %v, %v", len(got), file, err)
	}
	if _, ok := k.content.Get(s.Digest); !ok {
		t.Error("the small one is not in memory")
	}
	got, file, err := k.Open(t.Context(), l.Digest)
	if err != nil || got != nil || file == nil {
		t.Fatalf("large: %d bytes, %v, %v", len(got), file, err)
	}
	defer file.Close()
	if read, err := io.ReadAll(file); err != nil || !bytes.Equal(read, large) {
		t.Errorf("%d bytes, %v", len(read), err)
	}
	if _, ok := k.content.Get(l.Digest); ok {
		t.Error("the large one is in memory")
	}
}

func TestTheCountIsWhatIsOnDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refuse := new(atomic.Bool)
		walk := &lateWalk{Blobs: inMemory(t)}
		k := newStore(t, refusing{walk, refuse}, store.Bounds{MaxBytes: 1 << 20})
		before, b := bytesOf(1, 1000)
		draft, err := k.blobs.Create(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := draft.Write(before); err != nil {
			t.Fatal(err)
		}
		if err := draft.Commit(); err != nil {
			t.Fatal(err)
		}
		// Content that is published during a count is counted once.
		during, d := bytesOf(2, 2000)
		walk.before = func() {
			walk.before = nil
			if err := k.Put(t.Context(), d, during); err != nil {
				t.Error(err)
			}
		}
		if err := k.Count(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		k.wantUsageExact(t)
		// The same content again adds nothing.
		for range 2 {
			if err := k.Put(t.Context(), d, during); err != nil {
				t.Fatal(err)
			}
		}
		k.wantUsageExact(t)
		k.PutMemory(d.Digest, during)
		if !k.Delete(t.Context(), d.Digest, d.Size) {
			t.Error("it is not deleted")
		}
		if _, ok := k.content.Get(d.Digest); ok {
			t.Error("it is still in memory")
		}
		k.wantUsageExact(t)
		// Content that could not be committed is not counted.
		refuse.Store(true)
		after, a := bytesOf(3, 3000)
		if err := k.Put(t.Context(), a, after); err == nil {
			t.Error("it was written")
		}
		k.wantUsageExact(t)
		refuse.Store(false)
		if err := k.Retry(t.Context(), a, after); err != nil || !k.Has(t.Context(), a.Digest) {
			t.Errorf("the next try: %v", err)
		}
		k.wantUsageExact(t)
		if err := k.Retry(t.Context(), d, during); err != nil || k.Has(t.Context(), d.Digest) {
			t.Errorf("what nobody failed to write is written: %v", err)
		}
	})
}

// A manifest may be requested as a blob too.
func TestContentThatIsPublishedTwiceIsCountedOnce(t *testing.T) {
	k := newStore(t, inMemory(t), store.Bounds{})
	content, d := bytesOf(1, 1000)
	if err := k.Put(t.Context(), d, content); err != nil {
		t.Fatal(err)
	}
	if err := k.publish(t.Context(), content, d); err != nil {
		t.Fatal(err)
	}
	k.wantUsageExact(t)
	// The draft may be older than what is there.
	other, o := bytesOf(2, 1000)
	draft, err := k.Create(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer draft.Close()
	if _, err := draft.Write(other); err != nil {
		t.Fatal(err)
	}
	if err := k.Put(t.Context(), o, other); err != nil {
		t.Fatal(err)
	}
	if err := k.Publish(t.Context(), o.Digest, o.Size, draft); err != nil {
		t.Fatal(err)
	}
	k.wantUsageExact(t)
	if state := k.State(); state.Reserved != 0 {
		t.Errorf("%d reservations are left", state.Reserved)
	}
}

func TestABlobWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newStore(t, inMemory(t), store.Bounds{})
		weight := k.Weight(1000)
		k = newStore(t, k.blobs, store.Bounds{MaxBytes: weight*2 + weight/2})
		one, o := bytesOf(1, 1000)
		two, w := bytesOf(2, 1000)
		three, h := bytesOf(3, 1000)

		published := make(chan error, 1)
		go func() { published <- k.publish(t.Context(), one, o) }()
		synctest.Wait()
		select {
		case err := <-published:
			t.Fatalf("it is published before anything is counted: %v", err)
		default:
		}
		<-k.EvictionDue()
		k.EvictionPass(func(p *store.Pass) { t.Errorf("%d bytes have to go", p.Wanted()) })
		synctest.Wait()
		if err := k.Count(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		// There is enough room: a pass that has nothing to do is not one in vain.
		k.EvictionPass(func(p *store.Pass) { t.Errorf("%d bytes have to go", p.Wanted()) })
		if err := <-published; err != nil {
			t.Fatal(err)
		}
		if err := k.publish(t.Context(), two, w); err != nil {
			t.Fatal(err)
		}

		go func() { published <- k.publish(t.Context(), three, h) }()
		synctest.Wait()
		if k.Has(t.Context(), h.Digest) {
			t.Error("it is published above the bound")
		}
		<-k.EvictionDue()
		k.EvictionPass(func(p *store.Pass) {
			if p.Wanted() < weight/2 {
				t.Errorf("%d bytes have to go", p.Wanted())
			}
			k.Delete(t.Context(), o.Digest, o.Size)
		})
		if err := <-published; err != nil || !k.Has(t.Context(), h.Digest) {
			t.Errorf("there is room, and %v", err)
		}
		k.wantUsageExact(t)

		// A pass that frees nothing ends the wait.
		go func() { published <- k.publish(t.Context(), one, o) }()
		synctest.Wait()
		k.EvictionPass(func(*store.Pass) {})
		if err := <-published; !errors.Is(err, cache.ErrFull) {
			t.Errorf("nothing can go, and %v", err)
		}
		// So do many passes that free something which others take.
		bytesOfFour, four := bytesOf(4, 10)
		go func() { published <- k.publish(t.Context(), one, o) }()
		for range 10 {
			synctest.Wait()
			if len(published) > 0 {
				break
			}
			k.EvictionPass(func(*store.Pass) {
				if err := k.Put(t.Context(), four, bytesOfFour); err != nil {
					t.Error(err)
				}
				k.Delete(t.Context(), four.Digest, four.Size)
			})
		}
		if err := <-published; !errors.Is(err, cache.ErrFull) {
			t.Errorf("others take what goes, and %v", err)
		}
		// A blob that can never fit is refused too: nothing of it is written.
		large := store.Descriptor{Digest: o.Digest, Size: weight * 3}
		draft, err := k.Create(t.Context(), large)
		if err != nil {
			t.Fatal(err)
		}
		defer draft.Close()
		if err := k.Reserve(draft, large); !errors.Is(err, cache.ErrFull) {
			t.Errorf("it is larger than the bound, and %v", err)
		}
	})
}

func TestAPublicationWaitsForADeletionThatHasBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		blobs := &slowDelete{Blobs: memory.New().Blobs(), begun: make(chan struct{}), goOn: make(chan struct{})}
		k := newStore(t, blobs, store.Bounds{})
		content, d := bytesOf(1, 1000)
		if err := k.Put(t.Context(), d, content); err != nil {
			t.Fatal(err)
		}
		deleted := make(chan bool, 1)
		go func() { deleted <- k.Delete(t.Context(), d.Digest, d.Size) }()
		<-blobs.begun
		published := make(chan error, 2)
		go func() { published <- k.publish(t.Context(), content, d) }()
		synctest.Wait()
		if n := len(published); n != 0 {
			t.Error("it is published while it is being deleted")
		}
		close(blobs.goOn)
		if !<-deleted {
			t.Error("it is not deleted")
		}
		if err := <-published; err != nil || !k.Has(t.Context(), d.Digest) {
			t.Errorf("published: %v", err)
		}
		k.wantUsageExact(t)
	})
}

func TestContentThatIsBeingPublishedIsNotDeleted(t *testing.T) {
	k := newStore(t, inMemory(t), store.Bounds{})
	content, d := bytesOf(1, 1000)
	draft, err := k.Create(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer draft.Close()
	if _, err := draft.Write(content); err != nil {
		t.Fatal(err)
	}
	err = k.Publish(t.Context(), d.Digest, d.Size, whileCommitting{draft, func() {
		if k.Delete(t.Context(), d.Digest, d.Size) {
			t.Error("it was deleted as it was published")
		}
	}})
	if err != nil || !k.Has(t.Context(), d.Digest) {
		t.Errorf("published: %v", err)
	}
	k.wantUsageExact(t)
}

func TestEvictionBeginsBeforeDownloadsComplete(t *testing.T) {
	k := newStore(t, inMemory(t), store.Bounds{MaxBytes: 10_000})
	if err := k.Count(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	content, d := bytesOf(1, 9500)
	if err := k.Put(t.Context(), d, content); err != nil {
		t.Fatal(err)
	}
	k.AddIncoming(5000)
	select {
	case <-k.EvictionDue():
	default:
		t.Error("nobody is woken")
	}
	k.AddIncoming(-5000)
	k.EvictionPass(func(p *store.Pass) {
		t.Errorf("%d bytes have to go, and nothing is expected any more", p.Wanted())
	})
}

func TestFreeSpaceOnTheFileSystemIsABoundToo(t *testing.T) {
	free := int64(50)
	k := newStore(t, inMemory(t), store.Bounds{MinFree: 100, Space: func() (cache.Space, error) { return cache.Space{Bytes: 1000, FreeBytes: free}, nil }})
	var told int64
	k.EvictionPass(func(p *store.Pass) { told = p.Wanted() })
	if told < 50 || told > 100 {
		t.Errorf("%d bytes have to go", told)
	}
	for _, f := range []func() (cache.Space, error){
		func() (cache.Space, error) { return cache.Space{Bytes: 1000, FreeBytes: 100}, nil },
		func() (cache.Space, error) { return cache.Space{}, nil }, // not known
		func() (cache.Space, error) { return cache.Space{}, errors.New("not known") },
	} {
		k := newStore(t, inMemory(t), store.Bounds{MinFree: 100, Space: f})
		k.EvictionPass(func(p *store.Pass) { t.Errorf("%d bytes have to go", p.Wanted()) })
	}
}

// lateWalk does something when a walk has begun, before it lists anything.
type lateWalk struct {
	cache.Blobs
	before func()
}

func (b *lateWalk) Walk(ctx context.Context, fn func(d cache.Digest, size int64) bool) error {
	if b.before != nil {
		b.before()
	}
	return b.Blobs.Walk(ctx, fn)
}

// refusing is a cache that refuses commits on request.
type refusing struct {
	cache.Blobs
	refuse *atomic.Bool
}

func (b refusing) Create(ctx context.Context, want cache.Descriptor) (cache.Draft, error) {
	draft, err := b.Blobs.Create(ctx, want)
	return whileCommitting{draft, func() {
		if b.refuse.Load() {
			draft.Close()
		}
	}}, err
}

// whileCommitting does something before a draft is committed.
type whileCommitting struct {
	cache.Draft
	do func()
}

func (d whileCommitting) Commit() error {
	d.do()
	return d.Draft.Commit()
}

// slowDelete blocks in the middle of a deletion.
type slowDelete struct {
	cache.Blobs
	begun, goOn chan struct{}
}

func (b *slowDelete) Delete(ctx context.Context, d cache.Digest) error {
	close(b.begun)
	<-b.goOn
	return b.Blobs.Delete(ctx, d)
}

func TestContentWithoutAnEndIsBoundedByAllThatIsDownloaded(t *testing.T) {
	k := newStore(t, inMemory(t), store.Bounds{MaxBytes: 10_000})
	if err := k.Count(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	k.AddIncoming(5000) // of a size that is known
	if err := k.Grow(4000); err != nil {
		t.Errorf("there is room: %v", err)
	}
	if err := k.Grow(4000); !errors.Is(err, cache.ErrFull) {
		t.Errorf("it would be more than the cache may hold: %v", err)
	}
	if n := k.State().Incoming; n != 9000 {
		t.Errorf("%d bytes are expected", n)
	}
	k.AddIncoming(-9000)
	if err := k.Grow(4000); err != nil {
		t.Errorf("there is room again: %v", err)
	}
}
