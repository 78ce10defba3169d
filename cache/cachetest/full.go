package cachetest

import (
	"testing"
	"time"

	"github.com/entrepot/entrepot/cache"
)

// Full tests what cache.Blobs does when it is full. open returns an empty store
// with room for the given number of bytes.
func Full(t *testing.T, open func(t *testing.T, room int64) cache.Blobs) {
	t.Run("a draft of more than there is room for gets none reserved", func(t *testing.T) {
		blobs := open(t, 1000)
		_, want := content(1, 1001)
		wantErr(t, "Reserve of 1001 bytes with room for 1000", create(t, blobs, want).Reserve(), cache.ErrFull)

		b, fits := content(2, 1000)
		publish(t, blobs, fits, b)
		wantContent(t, blobs, fits.Digest, b)
	})
	t.Run("what was written before the room ended stays readable", func(t *testing.T) {
		blobs := open(t, 1000)
		b, want := content(1, 3000)
		want.Size = -1
		draft := create(t, blobs, want)
		reader := draftReader(t, draft)
		write(t, draft, b[:900])
		n, err := draft.Write(b[900:])
		wantErr(t, "Write without room", err, cache.ErrFull)
		if n < 0 || n > 100 || draft.Written() != int64(900+n) {
			t.Fatalf("Write = %d bytes with room for 100, Written = %d", n, draft.Written())
		}
		wantRead(t, reader, b[:900+n])
		wantRead(t, draftReader(t, draft), b[:900+n])
		wantErr(t, "Verify of a part", draft.Verify(), cache.ErrMismatch)
		wantErr(t, "Commit of a part", draft.Commit(), cache.ErrMismatch)
		wantAbsent(t, blobs, want.Digest)
	})
	t.Run("room that returns is used", func(t *testing.T) {
		blobs := open(t, 1000)
		b, want := content(1, 1000)
		want.Size = -1
		full := create(t, blobs, want)
		write(t, full, b[:800])
		other, next := content(2, 900)
		next.Size = -1
		draft := create(t, blobs, next)
		n, err := draft.Write(other)
		wantErr(t, "Write without room", err, cache.ErrFull)
		if err := full.Close(); err != nil {
			t.Fatal(err)
		}
		write(t, draft, other[n:])
		if err := draft.Commit(); err != nil {
			t.Fatalf("Commit after the room returned: %v", err)
		}
		wantContent(t, blobs, next.Digest, other)
	})
	t.Run("a draft is not made when there is no room at all", func(t *testing.T) {
		blobs := open(t, 1000)
		b, want := content(1, 2000)
		write(t, create(t, blobs, want), b[:1000])
		_, other := content(2, 10)
		draft, err := blobs.Create(t.Context(), other)
		if err == nil {
			draft.Close()
		}
		wantErr(t, "Create without room", err, cache.ErrFull)
	})
	t.Run("what is reserved for one draft is not there for another", func(t *testing.T) {
		blobs := open(t, 1000)
		b, want := content(1, 800)
		_, other := content(2, 400)
		first, second := create(t, blobs, want), create(t, blobs, other)
		wantReserved(t, first, nil)
		wantReserved(t, first, nil)
		wantReserved(t, second, cache.ErrFull)
		// Whatever is written takes from what is reserved.
		_, rest := content(3, 200)
		wantRoom(t, blobs, rest)
		writeAt(t, first, b[:500], 0)
		wantRoom(t, blobs, rest)
		write(t, first, b[:200]) // over a part of that
		wantRoom(t, blobs, rest)
		wantReserved(t, first, nil)
		advance(t, first, 1000, 300)
		wantRoom(t, blobs, rest)
		write(t, first, b[500:])
		wantRoom(t, blobs, rest)
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		wantReserved(t, second, nil)
	})
	t.Run("only what is missing of a draft is reserved", func(t *testing.T) {
		blobs := open(t, 1000)
		b, want := content(1, 1000)
		draft := create(t, blobs, want)
		writeAt(t, draft, b[:600], 0)
		other, small := content(2, 100)
		second := create(t, blobs, small)
		write(t, second, other[:50])
		wantReserved(t, draft, cache.ErrFull)
		if err := second.Close(); err != nil {
			t.Fatal(err)
		}
		wantReserved(t, draft, nil)
		advance(t, draft, 1000, 600)
		write(t, draft, b[600:])
		commit(t, draft)
		wantContent(t, blobs, want.Digest, b)
	})
	t.Run("a piece without room counts as far as it was written", func(t *testing.T) {
		blobs := open(t, 1000)
		b, want := content(1, 3000)
		draft := create(t, blobs, want)
		writeAt(t, draft, b[:900], 0)
		n, err := draft.WriteAt(b[900:], 900)
		wantErr(t, "WriteAt without room", err, cache.ErrFull)
		if n < 0 || n > 100 {
			t.Fatalf("WriteAt = %d bytes with room for 100", n)
		}
		wantPieces(t, draft, cache.Span{To: int64(900 + n)})
		wantRead(t, draftReader(t, draft), b[:900+n])
		advance(t, draft, 3000, 900+n)
	})
	t.Run("a draft that is kept takes room until it is dropped", func(t *testing.T) {
		blobs := open(t, 1000)
		b, want := content(1, 2000)
		draft := create(t, blobs, want)
		write(t, draft, b[:700])
		keep(t, draft, "")
		other, next := content(2, 900)
		second := create(t, blobs, next)
		wantReserved(t, second, cache.ErrFull)
		if err := blobs.DropKept(t.Context(), want.Digest, time.Time{}); err != nil {
			t.Fatal(err)
		}
		wantReserved(t, second, nil)
		write(t, second, other)
		commit(t, second)
		wantContent(t, blobs, next.Digest, other)
	})
	t.Run("a draft gives back what was reserved when it is kept, and its room when it is replaced, published or closed", func(t *testing.T) {
		blobs := open(t, 1000)
		b, want := content(1, 1000)
		draft := create(t, blobs, want)
		wantReserved(t, draft, nil)
		write(t, draft, b[:500])
		keep(t, draft, "")
		_, probe := content(2, 500)
		wantRoom(t, blobs, probe)
		again := create(t, blobs, want)
		write(t, again, b[:400])
		keep(t, again, "")
		_, probe = content(3, 600)
		wantRoom(t, blobs, probe)
		resumed, _ := resume(t, blobs, want.Digest)
		wantRoom(t, blobs, probe)
		wantReserved(t, resumed, nil) // of what is missing
		if err := resumed.Close(); err != nil {
			t.Fatal(err)
		}
		_, probe = content(4, 1000)
		wantRoom(t, blobs, probe)

		b, want = content(5, 300)
		want.Size = -1
		unknown := create(t, blobs, want)
		write(t, unknown, b)
		writeAt(t, unknown, b, 300) // behind the end
		commit(t, unknown)
		_, probe = content(6, 700)
		wantRoom(t, blobs, probe)
	})
}

func wantReserved(t *testing.T, draft cache.Draft, want error) {
	t.Helper()
	if err := draft.Reserve(); (err == nil) != (want == nil) {
		t.Errorf("Reserve: %v, want %v", err, want)
	} else if want != nil {
		wantErr(t, "Reserve", err, want)
	}
}

// wantRoom fails unless there is room for so much, and not for a byte more.
func wantRoom(t *testing.T, blobs cache.Blobs, want cache.Descriptor) {
	t.Helper()
	draft := create(t, blobs, want)
	wantReserved(t, draft, nil)
	if err := draft.Close(); err != nil {
		t.Fatal(err)
	}
	want.Size++
	draft = create(t, blobs, want)
	wantReserved(t, draft, cache.ErrFull)
	if err := draft.Close(); err != nil {
		t.Fatal(err)
	}
}
