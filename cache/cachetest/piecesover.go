package cachetest

import (
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/entrepot/entrepot/cache"
)

func testPieceTooFar(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 1000)
	draft := create(t, blobs, want)
	for _, c := range []struct {
		off int64
		n   int
	}{{990, 11}, {1000, 1}, {5000, 1}, {math.MaxInt64, 1}, {math.MaxInt64 - 5, 6}, {-1, 1}, {-5, 10}} {
		n, err := draft.WriteAt(make([]byte, c.n), c.off)
		if n != 0 || err == nil || (c.off > 0 && c.off < math.MaxInt64-10 && !errors.Is(err, cache.ErrMismatch)) {
			t.Errorf("WriteAt(%d) of %d bytes = %d, %v, want ErrMismatch", c.off, c.n, n, err)
		}
	}
	wantPieces(t, draft)
	writeAt(t, draft, b[990:], 990)
	write(t, draft, b[:990])
	advance(t, draft, 10, 10)
	commit(t, draft)
	wantContent(t, blobs, want.Digest, b)
}

func testPieceOverPieces(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 1_000_000)
	draft := create(t, blobs, want)
	write(t, draft, b[:100_000])
	for _, at := range []int{200_000, 400_000, 700_000} {
		writeAt(t, draft, b[at:at+100_000], int64(at))
	}
	// All of it again, with other bytes where something is.
	again := slices.Clone(b)
	for _, s := range draft.Pieces() {
		clear(again[s.From:s.To])
	}
	writeAt(t, draft, again[50_000:950_000], 50_000)
	wantPieces(t, draft, cache.Span{To: 950_000})
	wantReadAt(t, draft, 0, b[:950_000])
	writeAt(t, draft, again[:1000], 0)
	writeAt(t, draft, b[950_000:], 950_000)
	advance(t, draft, 1_000_000, 900_000)
	commit(t, draft)
	wantContent(t, blobs, want.Digest, b)
}

func testWriteOverPieces(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 2_000_000)
	draft := create(t, blobs, want)
	for _, s := range []cache.Span{{From: 100_000, To: 101_000}, {From: 250_000, To: 800_000}, {From: 900_000, To: 1_900_000}} {
		writeAt(t, draft, b[s.From:s.To], s.From)
	}
	write(t, draft, b[:600_000])
	wantPieces(t, draft, cache.Span{To: 800_000}, cache.Span{From: 900_000, To: 1_900_000})
	if n := draft.Check(590_000, 1_000_000); n != 210_000 {
		t.Errorf("Check = %d, want 210000", n)
	}
	advance(t, draft, 1_000_000, 200_000)
	write(t, draft, b[800_000:1_100_000])
	advance(t, draft, 1_000_000, 800_000)
	write(t, draft, b[1_900_000:])
	commit(t, draft)
	wantContent(t, blobs, want.Digest, b)
}

func testWriteOverWrongPieces(t *testing.T, blobs cache.Blobs) {
	b, want := content(1, 10_000)
	draft := create(t, blobs, want)
	writeAt(t, draft, make([]byte, 2000), 1000)
	writeAt(t, draft, make([]byte, 5000), 5000)
	for rest := b; len(rest) > 0; rest = rest[min(1500, len(rest)):] {
		write(t, draft, rest[:min(1500, len(rest))])
	}
	wantRead(t, draftReader(t, draft), b)
	keep(t, draft, "")
	resumed, _ := resume(t, blobs, want.Digest)
	wantRead(t, draftReader(t, resumed), b)
	advance(t, resumed, 10_000, 10_000)
	commit(t, resumed)
	wantContent(t, blobs, want.Digest, b)
}
