package cachetest

import (
	"io"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
)

func drafts(t *testing.T, open func(t *testing.T) cache.Blobs) {
	run := func(name string, test func(t *testing.T, blobs cache.Blobs)) {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
	run("is not seen before it is committed", testDraftUnseen)
	run("that is closed without a commit leaves nothing behind", testDraftClosed)
	run("with a wrong digest is neither verified nor published", testDraftWrongDigest)
	run("shorter than announced is neither verified nor published", testDraftTooShort)
	run("refuses a write past the announced size and stays usable", testDraftTooLong)
	run("of unknown size is held to its digest", testDraftUnknownSize)
	run("is read while it is written", testDraftFollowed)
	run("is followed by readers at their own pace beside the writer", testDraftConcurrentReaders)
	run("has readers that outlive commit and close", testDraftReadersOutlive)
	run("has readers that outlive a close without a commit", testDraftReadersOutliveAbandon)
	run("is read after its commit, also when the blob is deleted", testDraftReadAfterCommit)
	run("does not disturb another of the same digest", testDraftsOfOneDigest)
	run("of what is published already is committed without an error", testDraftOfPublished)
	run("is committed beside others of the same digest", testConcurrentCommits)
	run("is closed twice without an error", testDraftClosedTwice)
}

func testDraftUnseen(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 1000)
	draft := create(t, blobs, want)
	wantAbsent(t, blobs, want.Digest)
	write(t, draft, b)
	wantAbsent(t, blobs, want.Digest)
	if err := draft.Verify(); err != nil {
		t.Errorf("Verify of whole content: %v", err)
	}
	wantAbsent(t, blobs, want.Digest)
	if err := draft.Commit(); err != nil {
		t.Fatalf("Commit: %v", err)
	}
	wantContent(t, blobs, want.Digest, b)
}

func testDraftClosed(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 1000)
	draft := create(t, blobs, want)
	write(t, draft, b)
	if err := draft.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	if err := draft.Commit(); err == nil {
		t.Error("Commit after Close: no error")
	}
	if _, err := draft.Write([]byte("x")); err == nil {
		t.Error("Write after Close: no error")
	}
	wantAbsent(t, blobs, want.Digest)
	if seen := walk(t, blobs); len(seen) != 0 {
		t.Errorf("Walk saw %v", seen)
	}
}

func testDraftWrongDigest(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 1000)
	b[500] ^= 1
	draft := create(t, blobs, want)
	write(t, draft, b)
	wantErr(t, "Verify of corrupt content", draft.Verify(), cache.ErrMismatch)
	wantErr(t, "Commit of corrupt content", draft.Commit(), cache.ErrMismatch)
	wantAbsent(t, blobs, want.Digest)
}

func testDraftTooShort(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 1000)
	// The digest matches what was written, so that only the size is wrong.
	want.Digest = digest.FromBytes(b[:999])
	draft := create(t, blobs, want)
	write(t, draft, b[:999])
	wantErr(t, "Verify of short content", draft.Verify(), cache.ErrMismatch)
	wantErr(t, "Commit of short content", draft.Commit(), cache.ErrMismatch)
	wantAbsent(t, blobs, want.Digest)
}

func testDraftTooLong(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 1000)
	draft := create(t, blobs, want)
	write(t, draft, b[:990])
	if n, err := draft.Write(make([]byte, 11)); n != 0 {
		t.Errorf("Write past the size took %d bytes, %v", n, err)
	} else {
		wantErr(t, "Write past the size", err, cache.ErrMismatch)
	}
	if draft.Written() != 990 {
		t.Errorf("Written = %d after a refused write, want 990", draft.Written())
	}
	write(t, draft, b[990:])
	_, err := draft.Write([]byte{0})
	wantErr(t, "Write after the last byte", err, cache.ErrMismatch)
	if err := draft.Commit(); err != nil {
		t.Fatalf("Commit after refused writes: %v", err)
	}
	wantContent(t, blobs, want.Digest, b)
}

func testDraftUnknownSize(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 1000)
	want.Size = -1
	draft := create(t, blobs, want)
	write(t, draft, b[:999])
	wantErr(t, "Verify of a part", draft.Verify(), cache.ErrMismatch)
	wantErr(t, "Commit of a part", draft.Commit(), cache.ErrMismatch)
	write(t, draft, b[999:])
	if err := draft.Commit(); err != nil {
		t.Fatalf("Commit: %v", err)
	}
}

func testDraftFollowed(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 3000)
	draft := create(t, blobs, want)
	early := draftReader(t, draft)
	if n, err := early.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("Read of an empty draft = %d, %v, want io.EOF", n, err)
	}
	if early.Size() != want.Size {
		t.Errorf("Size of a reader of an empty draft = %d, want the announced %d", early.Size(), want.Size)
	}

	for part := range 3 {
		from, to := part*1000, part*1000+1000
		write(t, draft, b[from:to])
		if draft.Written() != int64(to) {
			t.Errorf("Written = %d, want %d", draft.Written(), to)
		}
		wantRead(t, early, b[from:to])

		fresh := draftReader(t, draft)
		if fresh.Size() != want.Size {
			t.Errorf("Size of a reader = %d with %d bytes written, want the announced %d", fresh.Size(), to, want.Size)
		}
		wantRead(t, fresh, b[:to])

		piece := make([]byte, 1500)
		n, err := draft.ReadAt(piece, int64(from))
		if n != 1000 || err != io.EOF || string(piece[:n]) != string(b[from:to]) {
			t.Errorf("ReadAt(%d) over the end = %d, %v, want 1000 bytes and io.EOF", from, n, err)
		}
	}

	if at, err := early.Seek(500, io.SeekStart); at != 500 || err != nil {
		t.Errorf("Seek(500) = %d, %v", at, err)
	}
	wantRead(t, early, b[500:])
}

func testDraftConcurrentReaders(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 256<<10)
	draft := create(t, blobs, want)
	var group sync.WaitGroup
	for range 8 {
		reader := draftReader(t, draft)
		group.Go(func() {
			var got []byte
			piece := make([]byte, 3000)
			for len(got) < len(b) {
				n, err := reader.Read(piece)
				if err != nil && err != io.EOF {
					t.Errorf("Read beside the writer: %v", err)
					return
				}
				got = append(got, piece[:n]...)
				if at := draft.Written(); at > 0 {
					if n, err := draft.ReadAt(piece[:1], at-1); n != 1 || (err != nil && err != io.EOF) || piece[0] != b[at-1] {
						t.Errorf("ReadAt of the last byte written = %d, %v", n, err)
						return
					}
				}
			}
			if string(got) != string(b) {
				t.Error("a follower read other bytes than were written")
			}
		})
	}
	for rest := b; len(rest) > 0; rest = rest[min(1000, len(rest)):] {
		write(t, draft, rest[:min(1000, len(rest))])
	}
	if err := draft.Commit(); err != nil {
		t.Errorf("Commit: %v", err)
	}
	group.Wait()
}

func testDraftReadersOutlive(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 1000)
	draft := create(t, blobs, want)
	reader := draftReader(t, draft)
	write(t, draft, b)
	if err := draft.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := draft.Close(); err != nil {
		t.Fatal(err)
	}
	if err := blobs.Delete(t.Context(), want.Digest); err != nil {
		t.Fatal(err)
	}
	wantRead(t, reader, b)
}

func testDraftReadersOutliveAbandon(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 1000)
	draft := create(t, blobs, want)
	write(t, draft, b[:700])
	reader := draftReader(t, draft)
	if err := draft.Close(); err != nil {
		t.Fatal(err)
	}
	wantRead(t, reader, b[:700])
}

func testDraftReadAfterCommit(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 1000)
	draft := create(t, blobs, want)
	write(t, draft, b)
	if err := draft.Commit(); err != nil {
		t.Fatal(err)
	}
	for _, deleted := range []bool{false, true} {
		if deleted {
			if err := blobs.Delete(t.Context(), want.Digest); err != nil {
				t.Fatal(err)
			}
		}
		wantRead(t, draftReader(t, draft), b)
		piece := make([]byte, 1000)
		if n, err := draft.ReadAt(piece, 0); n != 1000 || (err != nil && err != io.EOF) || string(piece) != string(b) {
			t.Errorf("ReadAt after Commit (deleted: %t) = %d, %v", deleted, n, err)
		}
	}
}

func testDraftsOfOneDigest(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 1000)
	bad, good, late := create(t, blobs, want), create(t, blobs, want), create(t, blobs, want)
	write(t, bad, make([]byte, 1000))
	write(t, good, b[:500])
	write(t, late, b[:100])
	if err := bad.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, good, b[500:])
	if err := good.Commit(); err != nil {
		t.Fatalf("Commit beside another draft: %v", err)
	}
	if late.Written() != 100 {
		t.Errorf("Written of the other draft = %d, want 100", late.Written())
	}
	if err := late.Close(); err != nil {
		t.Fatal(err)
	}
	wantContent(t, blobs, want.Digest, b)
}

func testDraftOfPublished(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 1000)
	late := create(t, blobs, want)
	publish(t, blobs, want, b)
	reader := open(t, blobs, want.Digest)
	write(t, late, b)
	if err := late.Commit(); err != nil {
		t.Errorf("Commit of what is published already: %v", err)
	}
	wantRead(t, reader, b)
	wantContent(t, blobs, want.Digest, b)
	if seen := walk(t, blobs); len(seen) != 1 {
		t.Errorf("Walk saw %d digests, want 1", len(seen))
	}
}

func testConcurrentCommits(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 20_000)
	var group sync.WaitGroup
	for range 8 {
		draft := create(t, blobs, want)
		group.Go(func() {
			if _, err := draft.Write(b); err != nil {
				t.Errorf("Write: %v", err)
			} else if err := draft.Commit(); err != nil {
				t.Errorf("Commit: %v", err)
			}
		})
	}
	group.Wait()
	wantContent(t, blobs, want.Digest, b)
}

func testDraftClosedTwice(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 10)
	abandoned := create(t, blobs, want)
	published := create(t, blobs, want)
	write(t, published, b)
	if err := published.Commit(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := abandoned.Close(); err != nil {
			t.Errorf("Close of an abandoned draft: %v", err)
		}
		if err := published.Close(); err != nil {
			t.Errorf("Close of a published draft: %v", err)
		}
	}
	wantContent(t, blobs, want.Digest, b)
}

func draftReader(t *testing.T, draft cache.Draft) cache.Blob {
	t.Helper()
	reader, err := draft.Reader()
	if err != nil {
		t.Fatalf("Reader: %v", err)
	}
	t.Cleanup(func() { reader.Close() })
	return reader
}
