package cachetest

import (
	"io"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
)

func keptDrafts(t *testing.T, open func(t *testing.T) cache.Blobs) {
	run := func(name string, test func(t *testing.T, blobs cache.Blobs)) {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
	run("is resumed with all of it in its pieces", testResume)
	run("that was never kept is not found", testNeverKept)
	run("is no longer kept once it is resumed, and is kept again", testKeptAgain)
	run("replaces one that was kept before", testKeptReplaces)
	run("that is only saved is not kept", testSavedOnly)
	run("that was resumed is gone when it is closed", testResumedClosed)
	run("that was resumed is published, and gone", testResumedCommitted)
	run("is removed when another draft publishes the content", testKeptPublished)
	run("has readers that outlive that it is dropped", testKeptReaders)
	run("of some bytes or of none, in any algorithm, is what it was", testKeptKinds)
}

func keep(t *testing.T, draft cache.Draft, note string) {
	t.Helper()
	if err := draft.Keep([]byte(note)); err != nil {
		t.Fatalf("Keep: %v", err)
	}
	if err := draft.Close(); err != nil {
		t.Fatalf("Close after Keep: %v", err)
	}
}

func resume(t *testing.T, blobs cache.Blobs, d cache.Digest) (cache.Draft, cache.KeptDraft) {
	t.Helper()
	draft, kept, err := blobs.Resume(t.Context(), d)
	if err != nil {
		t.Fatalf("Resume(%s): %v", d, err)
	}
	t.Cleanup(func() {
		if err := draft.Close(); err != nil {
			t.Errorf("close the resumed draft of %s: %v", d, err)
		}
	})
	return draft, kept
}

func sameKept(t *testing.T, what string, got, want cache.KeptDraft) {
	t.Helper()
	if got.Digest != want.Digest || got.Size != want.Size || got.Bytes != want.Bytes || string(got.Note) != string(want.Note) {
		t.Errorf("%s: %+v, want %+v", what, got, want)
	}
	if since := time.Since(got.KeptAt); since < 0 || since > time.Minute {
		t.Errorf("%s: kept %s ago", what, since)
	}
}

// wantKept fails unless exactly these drafts are kept.
func wantKept(t *testing.T, blobs cache.Blobs, want ...cache.KeptDraft) {
	t.Helper()
	all := blobs.AllKept()
	if len(all) != len(want) {
		t.Errorf("AllKept = %+v, want %+v", all, want)
	}
	for _, w := range want {
		kept, ok := blobs.Kept(w.Digest)
		if !ok {
			t.Errorf("%s is not kept", w.Digest)
			continue
		}
		sameKept(t, "Kept", kept, w)
		if i := slices.IndexFunc(all, func(k cache.KeptDraft) bool { return k.Digest == w.Digest }); i < 0 {
			t.Errorf("AllKept lacks %s", w.Digest)
		} else {
			sameKept(t, "AllKept", all[i], w)
		}
	}
}

func wantNotKept(t *testing.T, blobs cache.Blobs, d cache.Digest) {
	t.Helper()
	if kept, ok := blobs.Kept(d); ok {
		t.Errorf("kept: %+v", kept)
	}
	draft, _, err := blobs.Resume(t.Context(), d)
	if err == nil {
		draft.Close()
	}
	wantErr(t, "Resume", err, cache.ErrNotFound)
}

func testResume(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 1_000_000)
	other, second := content(2, 5000)
	draft := create(t, blobs, want)
	write(t, draft, b[:300_000])
	writeAt(t, draft, b[400_000:500_000], 400_000)
	writeAt(t, draft, b[999_000:], 999_000)
	keep(t, draft, "the note")
	another := create(t, blobs, second)
	writeAt(t, another, other[1000:], 1000)
	keep(t, another, "")
	first := cache.KeptDraft{Digest: want.Digest, Size: want.Size, Bytes: 401_000, Note: []byte("the note")}
	wantKept(t, blobs, first, cache.KeptDraft{Digest: second.Digest, Size: 5000, Bytes: 4000})
	wantAbsent(t, blobs, want.Digest)

	resumed, kept := resume(t, blobs, want.Digest)
	sameKept(t, "Resume", kept, first)
	pieces := []cache.Span{{To: 300_000}, {From: 400_000, To: 500_000}, {From: 999_000, To: want.Size}}
	wantPieces(t, resumed, pieces...)
	if resumed.Written() != 0 {
		t.Errorf("Written = %d after Resume", resumed.Written())
	}
	if size := draftReader(t, resumed).Size(); size != want.Size {
		t.Errorf("Size of a reader = %d, want the announced %d", size, want.Size)
	}
	for _, s := range pieces {
		for at := s.From; at < s.To; {
			n := resumed.Check(at, 50_000)
			if n <= 0 || n > min(50_000, s.To-at) {
				t.Fatalf("Check(%d) = %d", at, n)
			}
			at += n
		}
		if n := resumed.Check(s.To-10, 100); n != 10 {
			t.Errorf("Check before the end of a piece = %d, want 10", n)
		}
		wantReadAt(t, resumed, s.From, b[s.From:s.To])
	}
	if n := resumed.Check(300_000, 10); n != 0 {
		t.Errorf("Check of a hole = %d", n)
	}
	wantKept(t, blobs, cache.KeptDraft{Digest: second.Digest, Size: 5000, Bytes: 4000})
}

func testNeverKept(t *testing.T, blobs cache.Blobs) {
	_, want := content(1, 1000)
	wantNotKept(t, blobs, want.Digest)
	wantNotKept(t, blobs, "sha256:../..")
	wantKept(t, blobs)
	for _, d := range []cache.Digest{want.Digest, "", "sha256:../.."} {
		if err := blobs.DropKept(t.Context(), d, time.Time{}); err != nil {
			t.Errorf("DropKept(%q) of what is not kept: %v", d, err)
		}
	}
}

func testKeptAgain(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 900_000)
	draft := create(t, blobs, want)
	write(t, draft, b[:1000])
	keep(t, draft, "1")
	at := int64(1000)
	for _, note := range []string{"2", "3"} {
		resumed, _ := resume(t, blobs, want.Digest)
		wantNotKept(t, blobs, want.Digest)
		wantKept(t, blobs)
		writeAt(t, resumed, b[at:at+300_000], at)
		at += 300_000
		advance(t, resumed, 555, 555)
		keep(t, resumed, note)
		wantKept(t, blobs, cache.KeptDraft{Digest: want.Digest, Size: want.Size, Bytes: at, Note: []byte(note)})
	}
	last, _ := resume(t, blobs, want.Digest)
	wantReadAt(t, last, 0, b[:at])
}

func testKeptReplaces(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 10_000)
	first, second := create(t, blobs, want), create(t, blobs, want)
	write(t, first, b[:5000])
	write(t, second, b[:2000])
	keep(t, first, "first")
	keep(t, second, "second")
	wantKept(t, blobs, cache.KeptDraft{Digest: want.Digest, Size: want.Size, Bytes: 2000, Note: []byte("second")})
	resumed, _ := resume(t, blobs, want.Digest)
	wantReadAt(t, resumed, 0, b[:2000])
	wantNotKept(t, blobs, want.Digest)
}

func testSavedOnly(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 10_000)
	draft := create(t, blobs, want)
	for from := 0; from < 5000; from += 1000 {
		write(t, draft, b[from:from+1000])
		if err := draft.Save([]byte("saved")); err != nil {
			t.Fatalf("Save: %v", err)
		}
	}
	wantKept(t, blobs)
	wantNotKept(t, blobs, want.Digest)
	if err := draft.Close(); err != nil {
		t.Fatal(err)
	}
	wantKept(t, blobs)
	wantNotKept(t, blobs, want.Digest)
}

func testResumedClosed(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 10_000)
	draft := create(t, blobs, want)
	write(t, draft, b[:5000])
	keep(t, draft, "")
	resumed, _ := resume(t, blobs, want.Digest)
	writeAt(t, resumed, b[5000:], 5000)
	if err := resumed.Close(); err != nil {
		t.Fatal(err)
	}
	wantNotKept(t, blobs, want.Digest)
	wantAbsent(t, blobs, want.Digest)
}

func testResumedCommitted(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 1_000_000)
	draft := create(t, blobs, want)
	writeAt(t, draft, b[200_000:700_000], 200_000)
	keep(t, draft, "")
	resumed, _ := resume(t, blobs, want.Digest)
	write(t, resumed, b[:100_000])
	writeAt(t, resumed, b[100_000:200_000], 100_000)
	advance(t, resumed, 1_000_000, 600_000)
	write(t, resumed, b[700_000:])
	commit(t, resumed)
	wantContent(t, blobs, want.Digest, b)
	wantNotKept(t, blobs, want.Digest)
	wantKept(t, blobs)
}

func testKeptPublished(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 10_000)
	draft := create(t, blobs, want)
	write(t, draft, b[:5000])
	keep(t, draft, "")
	publish(t, blobs, want, b)
	wantNotKept(t, blobs, want.Digest)
	wantKept(t, blobs)
	wantContent(t, blobs, want.Digest, b)
}

func testKeptReaders(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 10_000)
	draft := create(t, blobs, want)
	write(t, draft, b[:5000])
	writeAt(t, draft, b[6000:7000], 6000)
	early := draftReader(t, draft)
	if err := draft.Keep(nil); err != nil {
		t.Fatal(err)
	}
	readers := []cache.Blob{early, draftReader(t, draft)}
	if err := blobs.DropKept(t.Context(), want.Digest, time.Time{}); err != nil {
		t.Fatalf("DropKept: %v", err)
	}
	wantNotKept(t, blobs, want.Digest)
	wantKept(t, blobs)
	wantReadAt(t, draft, 6000, b[6000:7000])
	readers = append(readers, draftReader(t, draft))
	if err := draft.Close(); err != nil {
		t.Fatal(err)
	}
	for _, reader := range readers {
		wantRead(t, reader, b[:5000])
		if _, err := reader.Seek(6000, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		wantRead(t, reader, b[6000:7000])
	}
}

func testKeptKinds(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 1000)
	for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		for _, size := range []int64{-1, want.Size} {
			for _, n := range []int{0, 700} {
				d := algorithm.FromBytes(b)
				draft := create(t, blobs, cache.Descriptor{Digest: d, Size: size})
				write(t, draft, b[:n])
				keep(t, draft, "")
				wantKept(t, blobs, cache.KeptDraft{Digest: d, Size: size, Bytes: int64(n)})
				resumed, _ := resume(t, blobs, d)
				advance(t, resumed, 1000, n)
				write(t, resumed, b[n:])
				commit(t, resumed)
				wantContent(t, blobs, d, b)
				if err := blobs.Delete(t.Context(), d); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}
