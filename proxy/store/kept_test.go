package store_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/proxy/store"
)

// keep leaves the first n bytes of content behind, as a download does.
func (k *testStore) keep(ctx context.Context, content []byte, d store.Descriptor, n int) error {
	draft, err := k.Create(ctx, d)
	if err != nil {
		return err
	}
	defer draft.Close()
	if _, err := draft.Write(content[:n]); err != nil {
		return err
	}
	return k.Keep(ctx, d.Digest, draft, []byte("note"))
}

func (k *testStore) wantKept(t *testing.T, want int64) {
	t.Helper()
	if got := k.State().Kept; got != want {
		t.Errorf("%d bytes of drafts are counted, want %d", got, want)
	}
	k.wantUsageExact(t)
}

func TestDraftsThatAreKeptAreCounted(t *testing.T) {
	ctx := t.Context()
	walk := &lateWalk{Blobs: inMemory(t)}
	k := newStore(t, walk, store.Bounds{MaxBytes: 1 << 20})
	keep := func(content []byte, d store.Descriptor, n int) {
		t.Helper()
		if err := k.keep(ctx, content, d, n); err != nil {
			t.Fatal(err)
		}
	}
	count := func(during func()) {
		t.Helper()
		walk.before = during
		if err := k.Count(ctx, nil); err != nil {
			t.Fatal(err)
		}
		walk.before = nil
	}
	one, o := bytesOf(1, 1000)
	two, w := bytesOf(2, 2000)
	keep(one, o, 100) // before anything is counted
	count(nil)
	k.wantKept(t, 100)
	keep(two, w, 500)
	k.wantKept(t, 600)
	keep(two, w, 700) // in place of the one before
	k.wantKept(t, 800)

	draft, _, err := k.Resume(ctx, w.Digest)
	if err != nil {
		t.Fatal(err)
	}
	k.wantKept(t, 100)
	if err := k.Keep(ctx, w.Digest, draft, nil); err != nil {
		t.Fatal(err)
	}
	if err := draft.Close(); err != nil {
		t.Fatal(err)
	}
	k.wantKept(t, 800)
	count(func() { // one comes and one goes while the walk is under way
		keep(one, o, 300)
		if draft, _, err = k.Resume(ctx, w.Digest); err != nil {
			t.Fatal(err)
		}
	})
	k.wantKept(t, 300)
	if _, err := draft.WriteAt(two[700:1000], 700); err != nil {
		t.Fatal(err)
	}
	k.wantKept(t, 300) // what a download has is not counted
	if err := k.Keep(ctx, w.Digest, draft, nil); err != nil {
		t.Fatal(err)
	}
	if err := draft.Close(); err != nil {
		t.Fatal(err)
	}
	k.wantKept(t, 1300)

	// Content that is published ends what was kept of it.
	if err := k.publish(ctx, two, w); err != nil {
		t.Fatal(err)
	}
	k.wantKept(t, 300)
	if err := k.Put(ctx, o, one); err != nil { // a manifest that a client began to read as a blob
		t.Fatal(err)
	}
	k.wantKept(t, 0)
	keep(one, o, 200)
	if err := k.blobs.DropKept(ctx, o.Digest, time.Time{}); err != nil { // by whoever else may
		t.Fatal(err)
	}
	count(nil)
	k.wantKept(t, 0)
	if _, _, err := k.Resume(ctx, o.Digest); !errors.Is(err, cache.ErrNotFound) {
		t.Errorf("resumed after it was published: %v", err)
	}
	k.wantKept(t, 0)
}

func TestADroppedDraftSaysWhatItFreed(t *testing.T) {
	ctx := t.Context()
	blobs := &undroppable{Blobs: memory.New().Blobs(), err: errors.New("the disk")}
	k := newStore(t, blobs, store.Bounds{})
	content, d := bytesOf(1, 1000)
	if err := k.keep(ctx, content, d, 400); err != nil {
		t.Fatal(err)
	}
	if freed := k.DropKept(ctx, d.Digest, time.Time{}); freed != 0 {
		t.Errorf("%d bytes were freed, and it is still there", freed)
	}
	k.wantKept(t, 400)
	// The cache may have lost it all the same. Then it is not counted.
	blobs.loses = true
	if freed := k.DropKept(ctx, d.Digest, time.Time{}); freed != 0 {
		t.Errorf("%d bytes were freed, and its file is still there", freed)
	}
	k.wantKept(t, 0)
	blobs.err = nil
	if err := k.keep(ctx, content, d, 400); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int64{400, 0} {
		if freed := k.DropKept(ctx, d.Digest, time.Time{}); freed != want {
			t.Errorf("%d bytes were freed, want %d", freed, want)
		}
		k.wantKept(t, 0)
	}
	if kept, ok := k.Kept(d.Digest); ok || len(k.AllKept()) != 0 {
		t.Errorf("%+v is still kept", kept)
	}
}

func TestADraftThatIsKeptAboveTheBoundWakesEviction(t *testing.T) {
	k := newStore(t, inMemory(t), store.Bounds{MaxBytes: 1000})
	if err := k.Count(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	content, d := bytesOf(1, 2000)
	for _, c := range []struct {
		n     int
		wakes bool
	}{{900, false}, {1100, true}} {
		if err := k.keep(t.Context(), content, d, c.n); err != nil {
			t.Fatal(err)
		}
		select {
		case <-k.EvictionDue():
			if !c.wakes {
				t.Errorf("%d bytes of 1000 woke eviction", c.n)
			}
		default:
			if c.wakes {
				t.Errorf("%d bytes of 1000 did not wake eviction", c.n)
			}
		}
	}
	var excess int64
	k.EvictionPass(func(p *store.Pass) { excess = p.Wanted(); k.DropKept(t.Context(), d.Digest, time.Time{}) })
	if excess < 100 {
		t.Errorf("%d bytes have to go", excess)
	}
	k.EvictionPass(func(p *store.Pass) { t.Errorf("%d bytes still have to go", p.Wanted()) })
}

// What is larger than the whole cache may be looked at, but is not reserved.
func TestALookAtWhatNeverFitsIsKept(t *testing.T) {
	k := newStore(t, inMemory(t), store.Bounds{MaxBytes: 1000})
	large := store.Descriptor{Digest: digest.FromString("large"), Size: 1 << 30}
	draft, err := k.Create(t.Context(), large)
	if err != nil {
		t.Fatal(err)
	}
	defer draft.Close()
	if _, err := draft.WriteAt([]byte("a piece"), 1<<29); err != nil {
		t.Fatal(err)
	}
	if err := k.Reserve(draft, large); !errors.Is(err, cache.ErrFull) {
		t.Errorf("reserved: %v", err)
	}
	if err := k.Keep(t.Context(), large.Digest, draft, nil); err != nil {
		t.Fatal(err)
	}
	if kept, ok := k.Kept(large.Digest); !ok || kept.Size != large.Size || kept.Bytes != 7 {
		t.Errorf("%+v, %v", kept, ok)
	}
}

// undroppable is a cache that fails to remove drafts.
type undroppable struct {
	cache.Blobs
	err   error
	loses bool // forgets them nevertheless
}

func (b *undroppable) DropKept(ctx context.Context, d cache.Digest, keptAt time.Time) error {
	if b.err != nil && !b.loses {
		return b.err
	}
	return errors.Join(b.Blobs.DropKept(ctx, d, keptAt), b.err)
}
