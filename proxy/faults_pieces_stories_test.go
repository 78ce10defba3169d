package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/entrepot/entrepot/cache"
	pulling "github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// inTurn is what several clients see, one after the other.
func inTurn(all ...string) string { return strings.Join(all, "; ") }

// reads is a client that reads one piece, of an upstream with a fault.
func reads(from, to int, faults ...upstreamtest.Fault) func(p *piecesOf) string {
	return func(p *piecesOf) string {
		if len(faults) > 0 {
			p.fake.Always("GET blobs", upstreamtest.Combine(faults...))
		}
		return p.piece(from, to)
	}
}

func pieceStories() []pieceStory {
	all := [][]pieceStory{cutStories(), upstreamStories(), lifeStories(), killStories(), roomStories(), memberStories()}
	var rows []pieceStory
	for _, some := range all {
		rows = append(rows, some...)
	}
	return rows
}

// wrong sends one byte that is wrong.
var wrong = upstreamtest.Rewritten(func(b []byte) []byte { b[7] ^= 1; return b })

// wholeSlowly is what a client sees of the whole that has bytes before the last
// of them come from an upstream that is well.
func (p *piecesOf) wholeSlowly() string {
	p.Helper()
	p.fake.Mend()
	p.fake.Always("GET blobs", upstreamtest.Trickle(256<<10, 20))
	return p.whole()
}

// cutStories are about pieces that break off or are wrong.
func cutStories() []pieceStory {
	once := func() upstreamtest.Fault { return upstreamtest.FirstTime(upstreamtest.CutAfter(512 << 10)) } // it counts
	always := upstreamtest.CutAfter(16 << 10)
	const brokenPiece = "206, then unexpected EOF"
	return []pieceStory{
		{name: "the first piece is cut off, once", happens: reads(0, 1, once()), sees: pieceSees, asked: "0-1 MiB, 512 KiB-1 MiB", kept: "1 MiB", rest: "1-6 MiB"},
		{name: "a middle piece is cut off, once", happens: reads(2, 3, once()), sees: pieceSees, asked: "2-3 MiB, 2560 KiB-3 MiB", kept: "1 MiB", rest: "0-2 MiB, 3-6 MiB"},
		{name: "the last piece is cut off, once", happens: reads(5, 6, once()), sees: pieceSees, asked: "5-6 MiB, 5632 KiB-6 MiB", kept: "1 MiB", rest: "0-5 MiB"},
		{name: "the first piece is cut off, always", happens: reads(0, 1, always), sees: brokenPiece, asked: "0-1 MiB, 16 KiB-1 MiB, 32 KiB-1 MiB, 48 KiB-1 MiB, 64 KiB-1 MiB", kept: "80 KiB", rest: "80 KiB-6 MiB"},
		{name: "a middle piece is cut off, always", happens: reads(2, 3, always), sees: brokenPiece, asked: "2-3 MiB, 2064 KiB-3 MiB, 2080 KiB-3 MiB, 2096 KiB-3 MiB, 2112 KiB-3 MiB", kept: "80 KiB", rest: "0-2 MiB, 2128 KiB-6 MiB"},
		{name: "the last piece is cut off, always", happens: reads(5, 6, always), sees: brokenPiece, asked: "5-6 MiB, 5136 KiB-6 MiB, 5152 KiB-6 MiB, 5168 KiB-6 MiB, 5184 KiB-6 MiB", kept: "80 KiB", rest: "0-5 MiB, 5200 KiB-6 MiB"},
		{name: "a piece with a wrong byte, and then the whole", happens: func(p *piecesOf) string {
			p.fake.Always("GET blobs", wrong)
			p.piece(2, 3) // nothing tells yet
			return p.wholeSlowly()
		}, sees: "200, then unexpected EOF", asked: "2-3 MiB, 0-2 MiB, 3-6 MiB", kept: none, rest: "all"},
		{name: "a piece with a wrong byte, a restart, and then the whole", happens: func(p *piecesOf) string {
			p.fake.Always("GET blobs", wrong)
			p.piece(2, 3)
			p.restart()
			return p.wholeSlowly()
		}, sees: "200, then unexpected EOF", asked: "2-3 MiB, 0-2 MiB, 3-6 MiB", kept: none, rest: "all"},
	}
}

// upstreamStories are about what upstreams answer.
func upstreamStories() []pieceStory {
	tagged := func(etag string) upstreamtest.Fault { return upstreamtest.WithHeader("ETag", etag) }
	changes := func(meanwhile func(p *piecesOf)) func(p *piecesOf) string {
		return func(p *piecesOf) string {
			p.fake.Always("GET blobs", tagged(`"one"`))
			first := p.piece(2, 3)
			meanwhile(p)
			p.fake.Mend()
			p.fake.Always("GET blobs", tagged(`"two"`))
			return inTurn(first, p.piece(4, 5), p.piece(2, 3))
		}
	}
	three := inTurn(pieceSees, pieceSees, pieceSees)
	closed := upstreamtest.RangesAsked(func(byteRange string) bool { // F34
		return !strings.HasSuffix(byteRange, "-") && !strings.HasPrefix(byteRange, "bytes=-")
	})
	whole := func(p *piecesOf, faults ...upstreamtest.Fault) string {
		p.fake.Always("GET blobs", upstreamtest.Combine(faults...))
		return p.whole()
	}
	first := func(status int) func(p *piecesOf) string {
		return reads(4, 5, upstreamtest.Where(func(_ *http.Request, q upstreamtest.Request) bool { return q.Range != "" }, upstreamtest.Status(status, "RANGE_INVALID")))
	}
	larger := upstreamtest.WithHeader("Content-Range", fmt.Sprintf("bytes %d-%d/%d", 4<<20, 5<<20-1, rangedSize+1))
	return []pieceStory{
		{name: "the ETag changes between two pieces, and the first is read again", happens: changes(func(*piecesOf) {}), sees: three, asked: "2-3 MiB, 4-5 MiB, 2-3 MiB", kept: "2 MiB", rest: "0-2 MiB, 3-4 MiB, 5-6 MiB"},
		{name: "the ETag changes over a restart, and the first piece is read again", happens: changes((*piecesOf).restart), sees: three, asked: "2-3 MiB, 4-5 MiB, 2-3 MiB", kept: "2 MiB", rest: "0-2 MiB, 3-4 MiB, 5-6 MiB"},
		{name: "the size changes between two pieces", happens: func(p *piecesOf) string {
			one := p.piece(2, 3)
			p.fake.Always("GET blobs", larger)
			return inTurn(one, p.piece(4, 5))
		}, sees: inTurn(pieceSees, "502 UNAVAILABLE"), asked: "2-3 MiB, 4-5 MiB", kept: none, rest: "all"},
		{name: "there are no ranges", happens: func(p *piecesOf) string {
			defer p.comes()
			return reads(4, 5, upstreamtest.NoRange(nil))(p)
		}, sees: pieceSees, asked: "4-5 MiB", kept: "all of it", rest: none},
		{name: "there are no ranges, and no size", happens: func(p *piecesOf) string {
			defer p.comes()
			return reads(4, 5, upstreamtest.NoRange(nil), upstreamtest.Chunked())(p)
		}, sees: pieceSees, asked: "4-5 MiB", kept: "all of it", rest: none},
		{name: "a piece does not tell the size", happens: func(p *piecesOf) string {
			defer p.comes()
			return reads(4, 5, upstreamtest.Where(func(_ *http.Request, q upstreamtest.Request) bool { return q.Range != "" },
				upstreamtest.WithHeader("Content-Range", fmt.Sprintf("bytes %d-%d/*", 4<<20, 5<<20-1))))(p)
		}, sees: pieceSees, asked: "4-5 MiB, all", kept: "all of it", rest: none},
		{name: "ranges need both ends, and a piece is read, then the whole", happens: func(p *piecesOf) string {
			defer p.comes()
			return inTurn(reads(2, 3, closed)(p), p.whole())
		}, sees: inTurn(pieceSees, sound), asked: "2-3 MiB, 0-2 MiB, 3-6 MiB", kept: "all of it", rest: none},
		{name: "ranges need both ends, and the whole is cut off at 1 MiB, once", happens: func(p *piecesOf) string {
			defer p.comes()
			return whole(p, closed, upstreamtest.FirstTime(upstreamtest.CutAfter(1<<20)))
		}, sees: sound, asked: "all, 1-6 MiB", kept: "all of it", rest: none},
		{name: "every range is answered 416, and the whole is cut off at 1 MiB, once", happens: func(p *piecesOf) string {
			defer p.comes()
			return whole(p, upstreamtest.RangesAsked(func(string) bool { return false }), upstreamtest.FirstTime(upstreamtest.CutAfter(1<<20)))
		}, sees: sound, asked: "all, 1-6 MiB, all", kept: "all of it", rest: none},
		{name: "there are no ranges, and the whole is cut off at 1 MiB, once", happens: func(p *piecesOf) string {
			defer p.comes()
			return whole(p, upstreamtest.NoRange(nil), upstreamtest.FirstTime(upstreamtest.CutAfter(1<<20)))
		}, sees: sound, asked: "all, 1-6 MiB", kept: "all of it", rest: none},
		{name: "the first range is answered 416", happens: func(p *piecesOf) string { defer p.comes(); return first(416)(p) }, sees: pieceSees, asked: "4-5 MiB, all", kept: "all of it", rest: none},
		{name: "the first range is answered 400", happens: func(p *piecesOf) string { defer p.comes(); return first(400)(p) }, sees: pieceSees, asked: "4-5 MiB, all", kept: "all of it", rest: none},
		{name: "nothing tells the size, and a range is past the end", unknown: true, happens: func(p *piecesOf) string { defer p.comes(); return p.piece(7, 8) },
			sees: "416 RANGE_INVALID", asked: "7-8 MiB, all", kept: "all of it", rest: none},
		{name: "the size is known, and a range is past the end", happens: func(p *piecesOf) string { return p.piece(7, 8) },
			sees: "416 RANGE_INVALID", asked: "0-1 bytes", kept: "1 byte", rest: "1 byte-6 MiB"},
		{name: "nothing tells the size, and the last bytes are asked for", unknown: true, happens: func(p *piecesOf) string { return p.ranges(p.path, "bytes=-1048576") },
			sees: pieceSees, asked: "0-1 bytes, 5-6 MiB", kept: "1048577 bytes", rest: "1 byte-5 MiB"},
	}
}

// lifeStories are about clients that come and go.
func lifeStories() []pieceStory {
	head := func(p *piecesOf) string {
		a := p.m.head(p.path)
		return fmt.Sprintf("`HEAD` %d of %s", a.status, a.header.Get("Content-Length"))
	}
	stopped := func(meanwhile func(p *piecesOf)) func(p *piecesOf) string {
		return func(p *piecesOf) string {
			p.piece(2, 3)
			meanwhile(p)
			p.fake.Stop()
			return inTurn(p.piece(2, 3), p.piece(4, 5), p.whole(), p.piece(2, 3), head(p))
		}
	}
	withUpstreamStopped := inTurn(pieceSees, "502 UNAVAILABLE", "502 UNAVAILABLE", pieceSees, "`HEAD` 200 of 6291456")
	return []pieceStory{
		{name: "a piece is read, and the upstream stops: that piece, another, the whole, the first again, `HEAD`", happens: stopped(func(*piecesOf) {}), sees: withUpstreamStopped, asked: "2-3 MiB", kept: "1 MiB", rest: "0-2 MiB, 3-6 MiB"},
		{name: "the same, after a restart", happens: stopped((*piecesOf).restart), sees: withUpstreamStopped, asked: "2-3 MiB", kept: "1 MiB", rest: "0-2 MiB, 3-6 MiB"},
		{name: "a client leaves in the middle of a piece, and another reads it", happens: func(p *piecesOf) string {
			more, _ := p.holds(begun)
			_, leave := p.begins(2, 3)
			leave()
			close(more)
			return p.piece(2, 3)
		}, sees: pieceSees, asked: "2-3 MiB", kept: "1 MiB", rest: "0-2 MiB, 3-6 MiB"},
		{name: "two clients read pieces that overlap", happens: func(p *piecesOf) string {
			more, arrived := p.holds(begun)
			one, _ := p.begins(2, 4)
			<-arrived
			two := make(chan string)
			go func() { two <- p.piece(3, 5) }()
			<-arrived
			close(more)
			return inTurn(p.ends(one, 2, 4), <-two)
		}, sees: inTurn(pieceSees, pieceSees), asked: "2-4 MiB, 4-5 MiB", kept: "3 MiB", rest: "0-2 MiB, 5-6 MiB"},
		{name: "pieces of more than 60 % are read", happens: func(p *piecesOf) string {
			defer p.comes()
			return inTurn(p.piece(0, 2), p.piece(3, 5))
		}, sees: inTurn(pieceSees, pieceSees), asked: "0-2 MiB, 2-6 MiB", kept: "all of it", rest: none},
		{name: "a piece of a blob of 3 MiB is read", size: 3 << 20, happens: func(p *piecesOf) string { defer p.comes(); return p.piece(1, 2) },
			sees: pieceSees, asked: "1-2 MiB, 0-1 MiB, 2-3 MiB", kept: "all of it", rest: none},
		{name: "offline, with a draft that was kept: its piece, another, the whole, `HEAD`", happens: func(p *piecesOf) string {
			p.piece(2, 3)
			p.s.options = func(o *pulling.Options) { o.Rules.Offline = true }
			p.restart()
			return inTurn(p.piece(2, 3), p.piece(4, 5), p.whole(), head(p))
		}, sees: inTurn(pieceSees, "404 BLOB_UNKNOWN", "404 BLOB_UNKNOWN", "`HEAD` 200 of 6291456"), asked: "2-3 MiB", kept: "1 MiB", rest: "0-2 MiB, 3-6 MiB"},
		{name: "the mirror stops in the middle of the whole", happens: func(p *piecesOf) string {
			p.holds(3 << 20)
			resp, _ := p.beginsTo("", 3<<20-1000)
			p.m.stop()
			_, err := io.ReadAll(resp.Body)
			return fmt.Sprintf("%d, then %v", resp.StatusCode, err)
		}, sees: "200, then unexpected EOF", asked: "all", kept: "3 MiB", rest: "3-6 MiB"},
	}
}

// killStories are about a mirror that is killed, and about drafts that are
// damaged while no upstream can mend them.
func killStories() []pieceStory {
	const gone = "502 UNAVAILABLE"
	return []pieceStory{
		{name: "a piece is read, and the mirror is killed at once: the piece again, with the upstream stopped", happens: func(p *piecesOf) string {
			p.piece(2, 3)
			p.kill()
			p.fake.Stop()
			return p.piece(2, 3)
		}, sees: gone, asked: "2-3 MiB", kept: none, rest: "all"},
		{name: "a piece is read, a restart, another is read, and the mirror is killed: both again, with the upstream stopped", happens: func(p *piecesOf) string {
			p.piece(2, 3)
			p.restart()
			p.piece(4, 5)
			p.kill()
			p.fake.Stop()
			return inTurn(p.piece(2, 3), p.piece(4, 5))
		}, sees: inTurn(pieceSees, gone), asked: "2-3 MiB, 4-5 MiB", kept: "1 MiB", rest: "0-2 MiB, 3-6 MiB"},
		{name: "a draft of two pieces has a wrong bit in one: both, with the upstream stopped", happens: func(p *piecesOf) string {
			p.piece(2, 3)
			p.piece(4, 5)
			p.spoils(func(path string) { flip(p.T, path, 4<<20+100) })
			p.fake.Stop()
			return inTurn(p.piece(2, 3), p.piece(4, 5))
		}, sees: inTurn(pieceSees, gone), asked: "2-3 MiB, 4-5 MiB", kept: "1792 KiB", rest: "0-2 MiB, 3 MiB-4352 KiB, 5-6 MiB"},
		{name: "a draft of two pieces is cut short between them: both, with the upstream stopped", happens: func(p *piecesOf) string {
			p.piece(2, 3)
			p.piece(4, 5)
			p.spoils(func(path string) { spoil(p.T, os.Truncate(path, 3<<20)) })
			p.fake.Stop()
			return inTurn(p.piece(2, 3), p.piece(4, 5))
		}, sees: inTurn(pieceSees, gone), asked: "2-3 MiB, 4-5 MiB", kept: "1 MiB", rest: "0-2 MiB, 3-6 MiB"},
		{name: "the map of a draft is damaged: its piece, with the upstream stopped", happens: func(p *piecesOf) string {
			p.piece(2, 3)
			p.spoils(func(path string) { flip(p.T, path+".map", 40) })
			p.fake.Stop()
			return p.piece(2, 3)
		}, sees: gone, asked: "2-3 MiB", kept: none, rest: "all"},
	}
}

// roomStories are about a disk that is full.
func roomStories() []pieceStory {
	full := fmt.Errorf("%w: %w", cache.ErrFull, syscall.ENOSPC)
	refuses := func(at string, now *atomic.Bool) func(*testing.T, *piecesOf) {
		return func(_ *testing.T, p *piecesOf) {
			p.s.options = func(o *pulling.Options) { o.Blobs = fullBlobs{o.Blobs, at, now, full} }
		}
	}
	var create, write, later, resumed atomic.Bool
	create.Store(true)
	return []pieceStory{
		{name: "the disk is full before the first piece, and it is read twice", setup: refuses("create", &create), happens: func(p *piecesOf) string {
			return inTurn(p.piece(2, 3), p.piece(2, 3))
		}, sees: inTurn(pieceSees, pieceSees), asked: "2-3 MiB, 2-3 MiB, 2-3 MiB", kept: none, rest: "all"},
		{name: "the disk becomes full in the middle of a piece", setup: refuses("write", &write), happens: func(p *piecesOf) string {
			more, _ := p.holds(begun)
			one, _ := p.begins(2, 3)
			write.Store(true)
			close(more)
			return p.ends(one, 2, 3)
		}, sees: pieceSees, asked: "2-3 MiB, 2560 KiB-3 MiB", kept: none, rest: "all"},
		{name: "the disk becomes full between two pieces: the second, the first again, the whole", setup: refuses("write", &later), happens: func(p *piecesOf) string {
			one := p.piece(2, 3)
			later.Store(true)
			return inTurn(one, p.piece(4, 5), p.piece(2, 3), p.whole())
		}, sees: inTurn(pieceSees, pieceSees, pieceSees, sound), asked: "2-3 MiB, 4-5 MiB, 4-5 MiB, 2-3 MiB, all", kept: none, rest: "all"},
		{name: "the disk is full when a draft that was kept is taken up: another piece, and its own", setup: refuses("write", &resumed), happens: func(p *piecesOf) string {
			p.piece(2, 3)
			p.restart()
			resumed.Store(true)
			return inTurn(p.piece(4, 5), p.piece(2, 3))
		}, sees: inTurn(pieceSees, pieceSees), asked: "2-3 MiB, 4-5 MiB, 4-5 MiB, 2-3 MiB", kept: none, rest: "all"},
	}
}

// memberStories are about clients of other repositories than that whose client
// read the piece.
func memberStories() []pieceStory {
	other := func(meanwhile func(p *piecesOf)) func(p *piecesOf) string {
		return func(p *piecesOf) string {
			p.piece(2, 3)
			meanwhile(p)
			return p.pieceOf(p.of("other"), 2, 3)
		}
	}
	both := func(_ *testing.T, p *piecesOf) { p.fake.AddImage("other", "1", p.content) }
	const one, around = "1 MiB", "0-2 MiB, 3-6 MiB"
	return []pieceStory{
		{name: "another repository, which is known to have the blob, reads the piece", setup: both, happens: other(func(p *piecesOf) { p.knows("other") }), sees: pieceSees, asked: "2-3 MiB", kept: one, rest: around},
		{name: "another repository, which was never asked about, reads the piece", setup: both, happens: other(func(*piecesOf) {}), sees: pieceSees, asked: "2-3 MiB, `HEAD` of other", kept: one, rest: around},
		{name: "the same, after a restart", setup: both, happens: other((*piecesOf).restart), sees: pieceSees, asked: "2-3 MiB, `HEAD` of other", kept: one, rest: around},
		{name: "another repository, which does not have the blob, reads the piece", setup: func(_ *testing.T, p *piecesOf) { p.fake.AddImage("other", "1", []byte("else")) }, happens: other(func(*piecesOf) {}), sees: "404 BLOB_UNKNOWN", asked: "2-3 MiB, `HEAD` of other, 0-1 bytes of other", kept: one, rest: around},
		{name: "another repository, which can't be asked about, reads the piece", setup: both, happens: other(func(p *piecesOf) { p.fake.Stop() }), sees: "502 UNAVAILABLE", asked: "2-3 MiB", kept: one, rest: around},
		{name: "the same, after a restart", setup: both, happens: other(func(p *piecesOf) { p.restart(); p.fake.Stop() }), sees: "502 UNAVAILABLE", asked: "2-3 MiB", kept: one, rest: around},
		{name: "another repository is known to have the blob, the first is refused another piece, and it reads that", setup: both, happens: func(p *piecesOf) string {
			p.knows("other")
			own := p.piece(2, 3)
			p.fake.Always("GET blobs", upstreamtest.Where(func(_ *http.Request, q upstreamtest.Request) bool { return q.Repo == "app" }, upstreamtest.Status(http.StatusForbidden, "DENIED")))
			return inTurn(own, p.piece(4, 5), p.pieceOf(p.of("other"), 4, 5))
		}, sees: inTurn(pieceSees, "403 DENIED", pieceSees), asked: "2-3 MiB, 4-5 MiB, 4-5 MiB, 4-5 MiB of other", kept: one, rest: around},
		{name: "another upstream has other bytes under the digest: its client reads the same piece", setup: elsewhere(nil), happens: func(p *piecesOf) string {
			return inTurn(p.piece(2, 3), p.pieceOf(p.elsewhere(), 2, 3), p.piece(2, 3))
		}, sees: inTurn(pieceSees, others, pieceSees), asked: "2-3 MiB", kept: one, rest: around},
		{name: "the same, and it is stopped after its repository is known to have the blob", setup: elsewhere(nil), happens: func(p *piecesOf) string {
			own := p.piece(2, 3)
			p.m.head(p.elsewhere())
			p.other.Stop()
			return inTurn(own, p.pieceOf(p.elsewhere(), 2, 3), p.piece(2, 3))
		}, sees: inTurn(pieceSees, "502 UNAVAILABLE", pieceSees), asked: "2-3 MiB", kept: one, rest: around},
		{name: "the piece has a wrong byte, and a client of another upstream, which has no ranges, reads it too; then the whole", setup: elsewhere(upstreamtest.NoRange(nil)), happens: func(p *piecesOf) string {
			p.other.AddBlobAs("library/app", p.digest, p.content)
			p.fake.Always("GET blobs", wrong)
			return inTurn(p.piece(2, 3), p.pieceOf(p.elsewhere(), 2, 3), p.wholeSlowly())
		}, sees: inTurn(others, pieceSees, "200, then unexpected EOF"), asked: "2-3 MiB, 0-2 MiB, 3-6 MiB", kept: none, rest: "all"},
	}
}

// others is what a client sees of a piece of other content.
const others = "206 of application/octet-stream with 1048576 other bytes"

// elsewhere adds an upstream, which has other bytes under the digest.
func elsewhere(fault upstreamtest.Fault) func(*testing.T, *piecesOf) {
	return func(t *testing.T, p *piecesOf) {
		p.other = upstreamtest.New(t)
		p.other.AddBlobAs("library/app", p.digest, upstreamtest.Bytes(13, len(p.content)))
		if fault != nil {
			p.other.Always("GET blobs", fault)
		}
		p.s.options = func(o *pulling.Options) {
			remote, err := upstream.NewRemote(upstream.RemoteOptions{Name: "docker.io", Endpoint: p.other.URL()})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(remote.Close)
			o.Upstreams = append(o.Upstreams, pull.Upstream{Name: "docker.io", Endpoints: []upstream.Endpoint{remote}})
		}
	}
}

// elsewhere is the path of the blob at the other upstream.
func (p *piecesOf) elsewhere() string { return "/v2/docker.io/app/blobs/" + p.digest.String() }
