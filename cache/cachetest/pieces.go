package cachetest

import (
	"io"
	"math"
	"slices"
	"sync"
	"testing"

	"github.com/entrepot/entrepot/cache"
)

func draftPieces(t *testing.T, open func(t *testing.T) cache.Blobs) {
	run := func(name string, test func(t *testing.T, blobs cache.Blobs)) {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
	run("is published when its pieces came in any order", testPiecesInAnyOrder)
	run("is not whole before its pieces are in the prefix", testPiecesAreNotThePrefix)
	run("advances by at most so many bytes, and not over a hole", testAdvance)
	run("reads end before a hole", testReadsEndBeforeAHole)
	run("has readers that see no hole when it gets its first piece", testFirstHole)
	run("has checked what is there, and nothing else", testDraftCheck)
	run("refuses a piece past the announced size, and before the start", testPieceTooFar)
	run("keeps the bytes that are there when a piece is written over them", testPieceOverPieces)
	run("is written in order over its pieces", testWriteOverPieces)
	run("that is written over wrong pieces in order is right", testWriteOverWrongPieces)
	run("of unknown size ends with its digest, whatever is behind that", testPiecesBehindTheEnd)
	run("of unknown size has readers of what is there", testUnknownSizeReaders)
	run("has pieces that are written, read and checked beside each other", testConcurrentPieces)
	run("is not written after it was closed", testPiecesOfClosed)
}

func writeAt(t *testing.T, draft cache.Draft, b []byte, off int64) {
	t.Helper()
	if n, err := draft.WriteAt(b, off); n != len(b) || err != nil {
		t.Fatalf("WriteAt(%d) of %d bytes = %d, %v", off, len(b), n, err)
	}
}

func advance(t *testing.T, draft cache.Draft, n, want int) {
	t.Helper()
	if got, err := draft.Advance(n); got != want || err != nil {
		t.Fatalf("Advance(%d) = %d, %v, want %d", n, got, err, want)
	}
}

func wantPieces(t *testing.T, draft cache.Draft, want ...cache.Span) {
	t.Helper()
	if got := draft.Pieces(); !slices.Equal(got, want) {
		t.Fatalf("Pieces = %v, want %v", got, want)
	}
}

func wantReadAt(t *testing.T, from io.ReaderAt, off int64, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	n, err := from.ReadAt(got, off)
	if n != len(want) || (err != nil && err != io.EOF) || string(got) != string(want) {
		t.Errorf("ReadAt(%d) of %d bytes = %d, %v, or other bytes", off, len(want), n, err)
	}
}

func commit(t *testing.T, draft cache.Draft) {
	t.Helper()
	if err := draft.Commit(); err != nil {
		t.Fatalf("Commit: %v", err)
	}
}

func testPiecesInAnyOrder(t *testing.T, blobs cache.Blobs) {
	// Parts that are no multiples of anything, of a blob of several pieces.
	b, want := content(1, 1_000_003)
	draft := create(t, blobs, want)
	for _, part := range []int{9, 3, 4, 0, 7, 8, 1, 6, 2, 5} {
		from, to := part*100_003, min(part*100_003+100_003, len(b))
		writeAt(t, draft, b[from:to], int64(from))
		wantReadAt(t, draft, int64(from), b[from:to])
	}
	wantPieces(t, draft, cache.Span{To: want.Size})
	for draft.Written() < want.Size {
		n, err := draft.Advance(77_777)
		if n <= 0 || n > 77_777 || err != nil {
			t.Fatalf("Advance at %d = %d, %v", draft.Written(), n, err)
		}
		wantPieces(t, draft, cache.Span{To: want.Size})
	}
	if err := draft.Verify(); err != nil {
		t.Errorf("Verify: %v", err)
	}
	commit(t, draft)
	wantContent(t, blobs, want.Digest, b)
}

func testPiecesAreNotThePrefix(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 1000)
	draft := create(t, blobs, want)
	writeAt(t, draft, b, 0)
	if draft.Written() != 0 {
		t.Errorf("Written = %d before Advance", draft.Written())
	}
	wantErr(t, "Verify", draft.Verify(), cache.ErrMismatch)
	wantErr(t, "Commit", draft.Commit(), cache.ErrMismatch)
	wantAbsent(t, blobs, want.Digest)
	advance(t, draft, 1000, 1000)
	commit(t, draft)
	wantContent(t, blobs, want.Digest, b)
}

func testAdvance(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 1000)
	draft := create(t, blobs, want)
	advance(t, draft, 10, 0)
	writeAt(t, draft, b[100:300], 100)
	advance(t, draft, 10, 0)
	write(t, draft, b[:100])
	advance(t, draft, 0, 0)
	advance(t, draft, 150, 150)
	if draft.Written() != 250 {
		t.Errorf("Written = %d, want 250", draft.Written())
	}
	wantPieces(t, draft, cache.Span{To: 300})
	advance(t, draft, 1000, 50)
	writeAt(t, draft, b[400:500], 400)
	advance(t, draft, 1000, 0)
	write(t, draft, b[300:400])
	advance(t, draft, math.MaxInt, 100)
	write(t, draft, b[500:])
	commit(t, draft)
	wantContent(t, blobs, want.Digest, b)
}

func testReadsEndBeforeAHole(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 1_000_000)
	draft := create(t, blobs, want)
	early := draftReader(t, draft)
	write(t, draft, b[:1000])
	writeAt(t, draft, b[5000:6000], 5000)
	writeAt(t, draft, b[999_000:], 999_000)
	for name, reader := range map[string]cache.Blob{"early": early, "late": draftReader(t, draft)} {
		if reader.Size() != want.Size {
			t.Errorf("Size of the %s reader = %d, want the announced %d", name, reader.Size(), want.Size)
		}
		wantRead(t, reader, b[:1000])
		if _, err := reader.Seek(5500, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		wantRead(t, reader, b[5500:6000])
		if _, err := reader.Seek(3000, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if n, err := reader.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("Read in a hole = %d, %v, want io.EOF", n, err)
		}
		for what, from := range map[string]io.ReaderAt{"the draft": draft, "its " + name + " reader": reader} {
			wantReadAt(t, from, 999_500, b[999_500:])
			piece := make([]byte, 700)
			if n, err := from.ReadAt(piece, 5500); n != 500 || err != io.EOF || string(piece[:n]) != string(b[5500:6000]) {
				t.Errorf("ReadAt of %s over the end of a piece = %d, %v, want 500 bytes and io.EOF", what, n, err)
			}
			if n, err := from.ReadAt(piece, 4999); n != 0 || err != io.EOF {
				t.Errorf("ReadAt of %s in a hole = %d, %v, want io.EOF", what, n, err)
			}
		}
		if _, err := reader.Seek(500, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, reader); n != 500 || err != nil {
			t.Errorf("copied %d bytes before the hole, %v, want 500", n, err)
		}
	}
	writeAt(t, draft, b[1000:5000], 1000)
	wantRead(t, early, b[1000:6000])
}

func testFirstHole(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 100_000)
	for range 1000 {
		draft := create(t, blobs, want)
		write(t, draft, b[:1000])
		reader := draftReader(t, draft)
		if _, err := reader.Seek(990, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		var group sync.WaitGroup
		written := make(chan struct{})
		group.Go(func() {
			buffer, got, last := make([]byte, 100_000), 0, false
			for !last {
				select {
				case <-written:
					last = true
				default:
				}
				n, _ := reader.Read(buffer)
				if n > 0 && got == 0 && string(buffer[:n]) != string(b[990:990+n]) {
					t.Errorf("Read = %d bytes, and others than were written", n)
				}
				got += n
				if n, _ := draft.ReadAt(buffer, 995); n != 5 {
					t.Errorf("ReadAt = %d bytes, want the 5 before the hole", n)
				}
			}
			if got != 10 {
				t.Errorf("read %d bytes before the hole, want 10", got)
			}
		})
		writeAt(t, draft, b[50_000:], 50_000)
		close(written)
		group.Wait()
		if err := draft.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func testDraftCheck(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 1_000_000)
	draft := create(t, blobs, want)
	write(t, draft, b[:1000])
	writeAt(t, draft, b[1000:2000], 1000)
	writeAt(t, draft, b[300_000:900_000], 300_000)
	for _, c := range []struct{ off, n, want int64 }{
		{0, 10, 10}, {0, 1000, 1000}, {0, 1500, 1500}, {500, math.MaxInt64, 1500}, {1999, 5, 1}, {2000, 5, 0},
		{299_999, 5, 0}, {300_000, math.MaxInt64, 600_000}, {899_999, 5, 1}, {900_000, 5, 0}, {0, 0, 0}, {1_000_000, 1, 0}, {2_000_000, 1, 0},
	} {
		if got := draft.Check(c.off, c.n); got != c.want {
			t.Errorf("Check(%d, %d) = %d, want %d", c.off, c.n, got, c.want)
		}
	}
}

func testPiecesBehindTheEnd(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 1000)
	unknown := want
	unknown.Size = -1
	draft := create(t, blobs, unknown)
	write(t, draft, b)
	writeAt(t, draft, b, 1000)
	writeAt(t, draft, b, 100_000)
	commit(t, draft)
	wantContent(t, blobs, want.Digest, b)
}

func testUnknownSizeReaders(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 1000)
	want.Size = -1
	draft := create(t, blobs, want)
	if size := draftReader(t, draft).Size(); size != 0 {
		t.Errorf("Size = %d with nothing written", size)
	}
	write(t, draft, b[:100])
	if size := draftReader(t, draft).Size(); size != 100 {
		t.Errorf("Size = %d with 100 bytes written", size)
	}
	writeAt(t, draft, b[500:], 500)
	reader := draftReader(t, draft)
	if reader.Size() < 600 {
		t.Errorf("Size = %d with 600 bytes written", reader.Size())
	}
	wantReadAt(t, reader, 500, b[500:])
}

func testConcurrentPieces(t *testing.T, blobs cache.Blobs) {
	const parts, size = 64, 20_011
	b, want := content(1, parts*size)
	draft := create(t, blobs, want)
	var group sync.WaitGroup
	for writer := range 4 {
		group.Go(func() {
			for part := writer + 1; part < parts; part += 4 {
				from := part * size
				if n, err := draft.WriteAt(b[from:from+size], int64(from)); n != size || err != nil {
					t.Errorf("WriteAt(%d) = %d, %v", from, n, err)
					return
				}
				if n := draft.Check(int64(from), size); n != size {
					t.Errorf("Check(%d) of what was written = %d", from, n)
				}
			}
		})
		reader := draftReader(t, draft)
		group.Go(func() {
			piece := make([]byte, 5000)
			for draft.Written() < want.Size {
				for _, s := range draft.Pieces() {
					n := draft.Check(s.From, int64(len(piece)))
					wantReadAt(t, reader, s.From, b[s.From:s.From+n])
				}
				if err := draft.Save([]byte("note")); err != nil {
					t.Errorf("Save: %v", err)
					return
				}
				_ = draft.Verify() // it may or may not be whole
			}
		})
	}
	write(t, draft, b[:size])
	for draft.Written() < want.Size {
		if _, err := draft.Advance(33_333); err != nil {
			t.Errorf("Advance: %v", err)
			break
		}
		if err := draft.Reserve(); err != nil {
			t.Errorf("Reserve: %v", err)
			break
		}
	}
	group.Wait()
	commit(t, draft)
	wantContent(t, blobs, want.Digest, b)
}

func testPiecesOfClosed(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 1000)
	for _, end := range []func(cache.Draft) error{cache.Draft.Close, cache.Draft.Commit, func(d cache.Draft) error { return d.Keep(nil) }} {
		draft := create(t, blobs, want)
		write(t, draft, b)
		if err := end(draft); err != nil {
			t.Fatal(err)
		}
		_, written := draft.WriteAt(b[:1], 0)
		_, advanced := draft.Advance(1)
		for what, err := range map[string]error{
			"WriteAt": written, "Advance": advanced, "Save": draft.Save(nil), "Keep": draft.Keep(nil), "Commit": draft.Commit(),
		} {
			if err == nil {
				t.Errorf("%s after the end: no error", what)
			}
		}
	}
}
