package cachetest

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
)

// Blobs tests the contracts of cache.Blobs, cache.Blob and cache.Draft. open
// returns an empty store and closes it with t.Cleanup.
func Blobs(t *testing.T, open func(t *testing.T) cache.Blobs) {
	run := func(name string, test func(t *testing.T, blobs cache.Blobs)) {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
	run("what was never published is not found", testNeverPublished)
	run("what was published is opened, statted and walked", testPublished)
	run("content of sha384 and sha512 digests is kept (W7)", testAlgorithms)
	run("empty content is content", testEmptyContent)
	run("a digest that is none is not found, and no draft of it is made", testMalformedDigests)
	run("a size of -1 means that the size is not known", testUnknownSize)
	run("a blob is read from any offset", testBlobReads)
	run("a blob is read at many offsets at once", testConcurrentReadAt)
	run("a deleted blob is not found, and whoever reads it finishes", testDelete)
	run("deleting what is not there is no error", testDeleteAbsent)
	run("sound content is verified, at the pace that is given", testVerify)
	run("a walk ends when fn returns false", testWalkStops)
	run("a walk ends with its context", testWalkContext)
	run("a mark is another one once content was added or removed", testMark)
	t.Run("draft", func(t *testing.T) { drafts(t, open) })
	t.Run("draft in pieces", func(t *testing.T) { draftPieces(t, open) })
	t.Run("kept draft", func(t *testing.T) { keptDrafts(t, open) })
}

func testNeverPublished(t *testing.T, blobs cache.Blobs) {
	_, want := content(1, 10)
	wantAbsent(t, blobs, want.Digest)
}

func testVerify(t *testing.T, blobs cache.Blobs) {
	b, want := content(7, 700_000)
	publish(t, blobs, want, b)
	read := 0
	size, err := blobs.Verify(t.Context(), want.Digest, func(n int) error { read += n; return nil })
	if err != nil || size != want.Size || int64(read) != want.Size {
		t.Errorf("Verify = %d, %v, after a pace of %d bytes; the content has %d", size, err, read, want.Size)
	}
	wantContent(t, blobs, want.Digest, b)
	enough := errors.New("enough")
	if _, err := blobs.Verify(t.Context(), want.Digest, func(int) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("Verify that is ended by its pace: %v", err)
	}
	wantContent(t, blobs, want.Digest, b)
	_, other := content(8, 10)
	if _, err := blobs.Verify(t.Context(), other.Digest, func(int) error { return nil }); !errors.Is(err, cache.ErrNotFound) {
		t.Errorf("Verify of what is not there: %v, want ErrNotFound", err)
	}
}

func testPublished(t *testing.T, blobs cache.Blobs) {
	sizes := make(map[cache.Digest]int64)
	for seed, n := range []int{1, 1000, 100_000} {
		b, want := content(uint64(seed), n)
		publish(t, blobs, want, b)
		wantContent(t, blobs, want.Digest, b)
		sizes[want.Digest] = int64(n)
	}
	seen := walk(t, blobs)
	if len(seen) != len(sizes) {
		t.Errorf("Walk saw %d digests, want %d", len(seen), len(sizes))
	}
	for d, size := range sizes {
		if seen[d] != size {
			t.Errorf("Walk saw %s with %d bytes, want %d", d, seen[d], size)
		}
	}
}

func testAlgorithms(t *testing.T, blobs cache.Blobs) {
	for _, algorithm := range []digest.Algorithm{digest.SHA384, digest.SHA512} {
		b, want := content(1, 1000)
		want.Digest = algorithm.FromBytes(b)
		publish(t, blobs, want, b)
		wantContent(t, blobs, want.Digest, b)
		if size := walk(t, blobs)[want.Digest]; size != 1000 {
			t.Errorf("Walk saw %s with %d bytes, want 1000", want.Digest, size)
		}
	}
}

func testEmptyContent(t *testing.T, blobs cache.Blobs) {
	_, want := content(1, 0)
	publish(t, blobs, want, nil)
	wantContent(t, blobs, want.Digest, nil)
}

func testMalformedDigests(t *testing.T, blobs cache.Blobs) {
	for _, d := range []cache.Digest{
		"", "sha256", "sha256:", "sha256:abc", ":abc",
		"sha256:../../../../../../../../../../../../../../../../../etc/passwd",
		"md5:d41d8cd98f00b204e9800998ecf8427e",
		"../blobs/sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
		"sha256:44136FA355B3678A1146AD16F7E8649E94FB4FC21FE77E8310C060F61CAAFF8A",
	} {
		wantAbsent(t, blobs, d)
		if draft, err := blobs.Create(t.Context(), cache.Descriptor{Digest: d, Size: 1}); err == nil {
			draft.Close()
			t.Errorf("Create(%q) made a draft", d)
		}
		if err := blobs.Delete(t.Context(), d); err != nil {
			t.Errorf("Delete(%q) of what cannot be there: %v", d, err)
		}
	}
}

func testUnknownSize(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 5000)
	want.Size = -1
	publish(t, blobs, want, b)
	wantContent(t, blobs, want.Digest, b)
}

func testBlobReads(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 10_000)
	publish(t, blobs, want, b)
	blob := open(t, blobs, want.Digest)

	for _, seek := range []struct {
		offset int64
		whence int
		want   int64
	}{{4000, io.SeekStart, 4000}, {-100, io.SeekEnd, 9900}, {-50, io.SeekCurrent, 9950}} {
		// Read half of the rest, so that SeekCurrent starts in the middle.
		at, err := blob.Seek(seek.offset, seek.whence)
		if at != seek.want || err != nil {
			t.Fatalf("Seek(%d, %d) = %d, %v, want %d", seek.offset, seek.whence, at, err, seek.want)
		}
		wantRead(t, blob, b[at:])
	}
	if n, err := blob.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("Read at the end = %d, %v, want io.EOF", n, err)
	}
	piece := make([]byte, 100)
	if n, err := blob.ReadAt(piece, 9950); n != 50 || err != io.EOF || string(piece[:n]) != string(b[9950:]) {
		t.Errorf("ReadAt over the end = %d, %v, want 50 bytes and io.EOF", n, err)
	}
}

func testConcurrentReadAt(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 64_000)
	publish(t, blobs, want, b)
	blob := open(t, blobs, want.Digest)
	var group sync.WaitGroup
	for i := range 16 {
		group.Go(func() {
			piece := make([]byte, 1000)
			for off := i * 1000; off+1000 <= len(b); off += 1000 {
				if _, err := blob.ReadAt(piece, int64(off)); err != nil || string(piece) != string(b[off:off+1000]) {
					t.Errorf("ReadAt(%d): wrong bytes or %v", off, err)
				}
			}
		})
	}
	group.Wait()
}

func testDelete(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 100_000)
	publish(t, blobs, want, b)
	reader := open(t, blobs, want.Digest)
	head := make([]byte, 1000)
	if _, err := io.ReadFull(reader, head); err != nil {
		t.Fatal(err)
	}
	if err := blobs.Delete(t.Context(), want.Digest); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	wantAbsent(t, blobs, want.Digest)
	wantRead(t, reader, b[1000:])
	if _, err := reader.ReadAt(head, 0); err != nil || string(head) != string(b[:1000]) {
		t.Errorf("ReadAt after Delete: wrong bytes or %v", err)
	}

	publish(t, blobs, want, b)
	wantContent(t, blobs, want.Digest, b)
}

func testDeleteAbsent(t *testing.T, blobs cache.Blobs) {
	_, want := content(1, 10)
	for range 2 {
		if err := blobs.Delete(t.Context(), want.Digest); err != nil {
			t.Errorf("Delete of what is not there: %v", err)
		}
	}
}

func testWalkStops(t *testing.T, blobs cache.Blobs) {
	for seed := range uint64(3) {
		b, want := content(seed, 10)
		publish(t, blobs, want, b)
	}
	calls := 0
	err := blobs.Walk(t.Context(), func(cache.Digest, int64) bool {
		calls++
		return calls < 2
	})
	if calls != 2 || err != nil {
		t.Errorf("Walk, stopped at the second: %d calls, %v", calls, err)
	}
}

func testWalkContext(t *testing.T, blobs cache.Blobs) {
	for seed := range uint64(3) {
		b, want := content(seed, 10)
		publish(t, blobs, want, b)
	}
	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	calls := 0
	err := blobs.Walk(ctx, func(cache.Digest, int64) bool {
		calls++
		cancel(reason)
		return true
	})
	if calls != 1 {
		t.Errorf("Walk made %d calls after its context ended at the first", calls)
	}
	wantErr(t, "Walk after its context ended", err, reason)
}
