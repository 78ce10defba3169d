package cachetest

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/entrepot/entrepot/cache"
)

// Damage tests what cache.Blobs and cache.PublishedBlob do about damaged content. open
// returns an empty store, and a function that flips a bit in the middle of its
// content.
func Damage(t *testing.T, open func(t *testing.T) (blobs cache.Blobs, damage func(cache.Digest))) {
	for _, size := range []struct {
		name string
		n    int
	}{{"of some bytes", 1000}, {"of many pieces", 3_000_000}} {
		run := func(name string, test func(t *testing.T, blobs cache.Blobs, damage func(cache.Digest), b []byte, want cache.Descriptor)) {
			t.Run("content "+size.name+": "+name, func(t *testing.T) {
				blobs, damage := open(t)
				b, want := content(1, size.n)
				publish(t, blobs, want, b)
				test(t, blobs, damage, b, want)
			})
		}
		run("what is sound is checked, wherever and how much of it", testCheckSound)
		run("checks stand beside reads, and beside each other", testCheckConcurrent)
		run("what was deleted since is checked all the same", testCheckDeleted)
		run("what is damaged is a mismatch, and is quarantined", testCheckDamaged)
		run("of those who find it damaged one quarantines it", testCheckDamagedConcurrent)
		run("Verify of what is damaged is a mismatch, and quarantines it", testVerifyDamaged)
		run("a check reads again after the checks were invalidated", testCheckInvalidated)
	}
	t.Run("content weighs its bytes at least", func(t *testing.T) {
		blobs, _ := open(t)
		var before int64
		for size := int64(0); size < 1<<40; size = 2*size + 1 {
			if weight := blobs.Weight(size); weight < size || weight < before || weight > size+size/1000+100 {
				t.Errorf("Weight(%d) = %d", size, weight)
			} else {
				before = weight
			}
		}
	})
}

// checked returns how far successive checks get from off.
func checked(t *testing.T, blob cache.PublishedBlob, off int64) (int64, error) {
	t.Helper()
	for off < blob.Size() {
		n, err := blob.Check(t.Context(), off, blob.Size()-off)
		if err != nil {
			return off, err
		}
		if n <= 0 || n > blob.Size()-off {
			t.Fatalf("Check(%d, %d) = %d", off, blob.Size()-off, n)
		}
		off += n
	}
	return off, nil
}

func openKept(t *testing.T, blobs cache.Blobs, d cache.Digest) cache.PublishedBlob {
	t.Helper()
	blob, err := blobs.Open(t.Context(), d)
	if err != nil {
		t.Fatalf("Open(%s): %v", d, err)
	}
	t.Cleanup(func() { blob.Close() })
	return blob
}

func testCheckSound(t *testing.T, blobs cache.Blobs, _ func(cache.Digest), b []byte, want cache.Descriptor) {
	blob := openKept(t, blobs, want.Digest)
	if _, err := blob.Seek(7, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{want.Size - 1, want.Size / 2, 1, 0} {
		if at, err := checked(t, blob, off); at != want.Size || err != nil {
			t.Errorf("checks from %d got to %d of %d: %v", off, at, want.Size, err)
		}
		if n, err := blob.Check(t.Context(), off, 1); n != 1 || err != nil {
			t.Errorf("Check of one byte at %d = %d, %v", off, n, err)
		}
	}
	for _, none := range [][2]int64{{0, 0}, {want.Size, 1}, {want.Size + 1, 5}} {
		if n, err := blob.Check(t.Context(), none[0], none[1]); n != 0 || err != nil {
			t.Errorf("Check(%d, %d) of %d bytes = %d, %v, want none", none[0], none[1], want.Size, n, err)
		}
	}
	wantRead(t, blob, b[7:])
	wantContent(t, blobs, want.Digest, b)
}

func testCheckConcurrent(t *testing.T, blobs cache.Blobs, _ func(cache.Digest), b []byte, want cache.Descriptor) {
	shared := openKept(t, blobs, want.Digest)
	var group sync.WaitGroup
	for i := range 8 {
		blob := shared
		if i%2 == 0 {
			blob = openKept(t, blobs, want.Digest)
		}
		group.Go(func() {
			if at, err := checked(t, blob, int64(i)); at != want.Size || err != nil {
				t.Errorf("checks got to %d of %d: %v", at, want.Size, err)
			}
			piece := make([]byte, 100)
			if _, err := blob.ReadAt(piece, 500); err != nil || string(piece) != string(b[500:600]) {
				t.Errorf("ReadAt beside checks: wrong bytes or %v", err)
			}
		})
	}
	group.Wait()
}

func testCheckDeleted(t *testing.T, blobs cache.Blobs, damage func(cache.Digest), b []byte, want cache.Descriptor) {
	damage(want.Digest)
	damaged := openKept(t, blobs, want.Digest)
	publish(t, blobs, want, b)
	sound := openKept(t, blobs, want.Digest)
	if err := blobs.Delete(t.Context(), want.Digest); err != nil {
		t.Fatal(err)
	}
	if at, err := checked(t, sound, 0); at != want.Size || err != nil {
		t.Errorf("checks of what was deleted got to %d of %d: %v", at, want.Size, err)
	}
	if at, err := checked(t, damaged, 0); !errors.Is(err, cache.ErrMismatch) || errors.Is(err, cache.ErrQuarantined) {
		t.Errorf("checks of what is damaged and was replaced got to %d: %v, want ErrMismatch alone", at, err)
	}
}

func testCheckDamaged(t *testing.T, blobs cache.Blobs, damage func(cache.Digest), b []byte, want cache.Descriptor) {
	damage(want.Digest)
	blob := openKept(t, blobs, want.Digest)
	late := openKept(t, blobs, want.Digest)
	at, err := checked(t, blob, 0)
	if at > want.Size/2 || !errors.Is(err, cache.ErrMismatch) || !errors.Is(err, cache.ErrQuarantined) {
		t.Errorf("checks got to %d with damage at %d: %v, want ErrMismatch and ErrQuarantined", at, want.Size/2, err)
	}
	wantAbsent(t, blobs, want.Digest)
	if _, err := checked(t, late, 0); !errors.Is(err, cache.ErrMismatch) || errors.Is(err, cache.ErrQuarantined) {
		t.Errorf("checks by another: %v, want ErrMismatch alone", err)
	}
	publish(t, blobs, want, b)
	if at, err := checked(t, openKept(t, blobs, want.Digest), 0); at != want.Size || err != nil {
		t.Errorf("checks of what was published again got to %d of %d: %v", at, want.Size, err)
	}
	if _, err := checked(t, blob, 0); !errors.Is(err, cache.ErrMismatch) || errors.Is(err, cache.ErrQuarantined) {
		t.Errorf("checks of the damaged one beside it: %v, want ErrMismatch alone", err)
	}
	wantContent(t, blobs, want.Digest, b)
}

func testCheckDamagedConcurrent(t *testing.T, blobs cache.Blobs, damage func(cache.Digest), _ []byte, want cache.Descriptor) {
	damage(want.Digest)
	var quarantined atomic.Int64
	var group sync.WaitGroup
	var all []cache.PublishedBlob
	for range 8 {
		all = append(all, openKept(t, blobs, want.Digest))
	}
	for _, blob := range all {
		group.Go(func() {
			_, err := checked(t, blob, 0)
			if !errors.Is(err, cache.ErrMismatch) {
				t.Errorf("checks of what is damaged: %v, want ErrMismatch", err)
			}
			if errors.Is(err, cache.ErrQuarantined) {
				quarantined.Add(1)
			}
		})
	}
	group.Wait()
	if quarantined.Load() != 1 {
		t.Errorf("%d got ErrQuarantined, want 1", quarantined.Load())
	}
}

func testVerifyDamaged(t *testing.T, blobs cache.Blobs, damage func(cache.Digest), _ []byte, want cache.Descriptor) {
	damage(want.Digest)
	size, err := blobs.Verify(t.Context(), want.Digest, func(int) error { return nil })
	if size != want.Size || !errors.Is(err, cache.ErrMismatch) || !errors.Is(err, cache.ErrQuarantined) {
		t.Errorf("Verify = %d, %v, want %d, ErrMismatch and ErrQuarantined", size, err, want.Size)
	}
	wantAbsent(t, blobs, want.Digest)
}

func testCheckInvalidated(t *testing.T, blobs cache.Blobs, _ func(cache.Digest), _ []byte, want cache.Descriptor) {
	blob := openKept(t, blobs, want.Digest)
	for range 3 {
		if at, err := checked(t, blob, 0); at != want.Size || err != nil {
			t.Errorf("checks got to %d of %d: %v", at, want.Size, err)
		}
		blob.InvalidateChecks()
	}
}
