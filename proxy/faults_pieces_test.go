package proxy_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// A row of the table of pieces: one piece of a blob has been read, the upstream
// does something odd, and another piece is asked for.
type pieceRow struct {
	name   string
	before upstreamtest.Fault // of the first piece; nil for nothing odd
	fault  upstreamtest.Fault
	stop   bool                            // the upstream is stopped instead
	spoil  func(t *testing.T, path string) // done to the draft, while the mirror is not running
	piece  string                          // what the other piece gets
	again  string                          // what the first piece gets then
	whole  string                          // what the whole gets, once the upstream is well
	asked  string                          // for what the upstream is asked for that
}

const (
	pieceSees = "206, 1 part"
	firstPart = "bytes=5242880-5243879"
	otherPart = "bytes=2097152-3145727"
	around    = "around the pieces"
	allOfIt   = "all of it, over the first piece"
	nothing   = "nothing: all came with the piece"
)

func pieceRows() []pieceRow {
	total := func(n int) upstreamtest.Fault {
		return upstreamtest.WithHeader("Content-Range", fmt.Sprintf("bytes 2097152-3145727/%d", n))
	}
	return []pieceRow{
		{name: "nothing", fault: upstreamtest.Combine(), piece: pieceSees, again: pieceSees, whole: sound, asked: around},
		{name: "the piece is cut off, once", fault: upstreamtest.FirstTime(upstreamtest.CutAfter(600 << 10)), piece: pieceSees, again: pieceSees, whole: sound, asked: around},
		{name: "the piece is cut off, always", fault: upstreamtest.CutAfter(1000), piece: "206, then unexpected EOF", again: pieceSees, whole: sound, asked: allOfIt},
		{name: "the piece does not begin", fault: upstreamtest.CutAfter(0), piece: "502 UNAVAILABLE", again: pieceSees, whole: sound, asked: allOfIt},
		{name: "the piece has a wrong byte", fault: upstreamtest.Rewritten(func(b []byte) []byte { b[7] ^= 1; return b }), piece: "206 of application/octet-stream with 1048576 other bytes", again: pieceSees, whole: "200, then unexpected EOF", asked: around},
		{name: "the content has another ETag", before: upstreamtest.WithHeader("ETag", `"one"`), fault: upstreamtest.WithHeader("ETag", `"two"`), piece: pieceSees, again: pieceSees, whole: sound, asked: around},
		{name: "the content has another size", fault: upstreamtest.FirstTime(total(rangedSize + 1)), piece: "502 UNAVAILABLE", again: "206, 1 part", whole: sound, asked: allOfIt},
		{name: "it is stopped", stop: true, piece: "502 UNAVAILABLE", again: pieceSees},
		{name: "401", fault: upstreamtest.Status(401, "UNAUTHORIZED"), piece: "403 DENIED", again: pieceSees, whole: sound, asked: allOfIt},
		{name: "403", fault: upstreamtest.Status(403, "DENIED"), piece: "403 DENIED", again: pieceSees, whole: sound, asked: allOfIt},
		{name: "404", fault: upstreamtest.Status(404, "BLOB_UNKNOWN"), piece: "404 BLOB_UNKNOWN", again: pieceSees, whole: sound, asked: allOfIt},
		{name: "416", fault: upstreamtest.Status(416, "RANGE_INVALID"), piece: "502 UNAVAILABLE", again: pieceSees, whole: sound, asked: allOfIt},
		{name: "429", fault: upstreamtest.RateLimited(60), piece: "429 TOOMANYREQUESTS", again: pieceSees},
		{name: "500", fault: upstreamtest.Status(500, ""), piece: "502 UNAVAILABLE", again: pieceSees, whole: sound, asked: allOfIt},
		{name: "a web page", fault: upstreamtest.HTML(), piece: "502 UNAVAILABLE", again: pieceSees, whole: sound, asked: allOfIt},
		{name: "it has no ranges any more", fault: upstreamtest.NoRange(nil), piece: pieceSees, again: pieceSees, whole: sound, asked: nothing},
		{name: "the draft's map is gone", spoil: func(t *testing.T, path string) { spoil(t, os.Remove(path+".map")) }, piece: pieceSees, again: pieceSees, whole: sound, asked: around},
		{name: "the draft's map is damaged", spoil: func(t *testing.T, path string) { flip(t, path+".map", 40) }, piece: pieceSees, again: pieceSees, whole: sound, asked: around},
		{name: "the draft is damaged", spoil: func(t *testing.T, path string) { flip(t, path, 5<<20+100) }, piece: pieceSees, again: pieceSees, whole: sound, asked: around},
		{name: "the draft is cut short", spoil: func(t *testing.T, path string) { spoil(t, os.Truncate(path, 1<<20)) }, piece: pieceSees, again: pieceSees, whole: sound, asked: around},
	}
}

func spoil(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// flip flips a bit of a file.
func flip(t *testing.T, path string, at int64) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	spoil(t, err)
	defer file.Close()
	b := make([]byte, 1)
	_, err = file.ReadAt(b, at)
	spoil(t, err)
	b[0] ^= 1
	_, err = file.WriteAt(b, at)
	spoil(t, err)
}

// pieceFaults holds what becomes of a blob of which only pieces are read.
func pieceFaults(t *testing.T) string {
	content := upstreamtest.Bytes(11, rangedSize)
	var lines faultLines
	t.Run("rows", func(t *testing.T) {
		for i, row := range pieceRows() {
			for j, restarted := range []bool{false, true} {
				name := row.name
				if restarted {
					name += ", after a restart"
				} else if row.spoil != nil {
					continue
				}
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					runPiece(t, pieceRows()[i], content, restarted) // faults count
				})
				if j == 0 || row.spoil != nil {
					whole, asked := row.whole, row.asked
					if whole == "" {
						whole, asked = "not asked for", ""
					}
					lines.add(i, row.name, row.piece, row.again, whole, asked)
				}
			}
		}
	})
	return "## Pieces of a blob\n\nOne piece of a blob has been read. Then another is asked for, and the first one again: the same with a restart of " +
		"the mirror in between, or without. Once the upstream is well, the whole is pulled.\n\n" +
		lines.table("the upstream, or the disk", "the other piece", "the first one again", "the whole later", "is fetched") + storyLines(t) + clockLines(t)
}

// fetched says what an upstream was asked for when a client asked for the whole.
func fetched(asked []string) string {
	switch {
	case len(asked) == 0:
		return nothing
	case len(asked) == 2 && strings.HasSuffix(asked[0], " bytes=0-2097151") && strings.HasSuffix(asked[1], " bytes=3145728-6291455"):
		return around
	case len(asked) == 1 && !strings.Contains(asked[0], "bytes="):
		return allOfIt
	}
	return fmt.Sprintf("%q", asked)
}

func runPiece(t *testing.T, row pieceRow, content []byte, restarted bool) {
	fake := upstreamtest.New(t)
	_, manifest := fake.AddImage("app", "1", content)
	path := "/v2/app/blobs/" + manifest.Layers[0].Digest.String()
	s := setup{dir: t.TempDir(), once: true}
	m := newMirror(t, fake, s)
	ask := func(byteRange string) string {
		return rangesSeen(m.do(http.MethodGet, path, http.Header{"Range": {byteRange}}), content)
	}
	if a := m.get("/v2/app/manifests/1"); a.status != http.StatusOK {
		t.Fatalf("the manifest: %d", a.status)
	}
	if row.before != nil {
		fake.Always("GET blobs", row.before)
	}
	if got := ask(firstPart); got != pieceSees {
		t.Fatalf("the first piece: %q", got)
	}
	if restarted {
		m.stop()
		if row.spoil != nil {
			drafts, err := filepath.Glob(filepath.Join(s.dir, "drafts", "*.map"))
			if err != nil || len(drafts) != 1 {
				t.Fatalf("the drafts are %q: %v", drafts, err)
			}
			row.spoil(t, drafts[0][:len(drafts[0])-len(".map")])
		}
		m = newMirror(t, fake, s)
	}
	fake.Mend()
	switch {
	case row.stop:
		fake.Stop()
	case row.fault != nil:
		fake.Always("GET blobs", row.fault)
	}
	fake.Transcript()
	if got := ask(otherPart); got != row.piece {
		t.Errorf("the other piece gets %q, want %q", got, row.piece)
	}
	if got := ask(firstPart); got != row.again {
		t.Errorf("the first piece gets %q, want %q", got, row.again)
	}
	if row.whole == "" {
		return
	}
	fake.Mend()
	fake.Transcript()
	if got := rangesSeen(m.get(path), content); got != row.whole {
		t.Errorf("the whole gets %q, want %q", got, row.whole)
	}
	if got := fetched(fake.Transcript()); got != row.asked {
		t.Errorf("fetched for it is %s, want %s", got, row.asked)
	}
	// Whatever happened: then it is right, and kept.
	if got := rangesSeen(m.get(path), content); got != sound {
		t.Errorf("the next whole gets %q", got)
	}
}
