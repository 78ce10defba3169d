package cachetest

import (
	"testing"

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
}
