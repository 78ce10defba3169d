package proxy_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// A row of the table of what comes between clients and the pieces of a blob.
type pieceStory struct {
	name string
	size int // of the blob; 0 for rangedSize
	// happens is what happens. It returns what clients see.
	happens func(p *piecesOf) string
	sees    string // what clients see
	asked   string // what the upstream was asked for meanwhile
	kept    string // what is there after a restart
	rest    string // what the whole, asked for then, is fetched with
	// unknown means that the manifest was not pulled before: nothing tells the
	// size.
	unknown bool
	setup   func(t *testing.T, p *piecesOf) // nil for nothing
}

// piecesOf is a mirror and a blob, of which pieces are read.
type piecesOf struct {
	*testing.T
	fake    *upstreamtest.Registry
	other   *upstreamtest.Registry // of another name; nil for none
	s       setup
	m       *mirror
	w       *watched
	digest  pull.Digest
	path    string
	content []byte
}

func newPiecesOf(t *testing.T, row pieceStory) *piecesOf {
	t.Helper()
	size := row.size
	if size == 0 {
		size = rangedSize
	}
	p := &piecesOf{T: t, fake: upstreamtest.New(t), s: setup{dir: t.TempDir(), once: true}, content: upstreamtest.Bytes(12, size)}
	_, manifest := p.fake.AddImage("app", "1", p.content)
	p.digest = manifest.Layers[0].Digest
	p.path = p.of("app")
	if row.setup != nil {
		row.setup(t, p)
	}
	p.w = watch(&p.s)
	p.m = newMirror(t, p.fake, p.s)
	if !row.unknown {
		p.knows("app")
	}
	return p
}

func (p *piecesOf) of(repo string) string { return "/v2/" + repo + "/blobs/" + p.digest.String() }

// knows pulls the manifest of a repository, which names the blob.
func (p *piecesOf) knows(repo string) {
	p.Helper()
	if a := p.m.get("/v2/" + repo + "/manifests/1"); a.status != http.StatusOK {
		p.Fatalf("the manifest of %s: %d", repo, a.status)
	}
}

// piece is what a client sees of a piece, from one MiB to another.
func (p *piecesOf) piece(from, to int) string { return p.pieceOf(p.path, from, to) }

func (p *piecesOf) pieceOf(path string, from, to int) string {
	p.Helper()
	return p.ranges(path, fmt.Sprintf("bytes=%d-%d", from<<20, to<<20-1))
}

func (p *piecesOf) ranges(path, ranges string) string {
	p.Helper()
	return rangesSeen(p.m.do(http.MethodGet, path, http.Header{"Range": {ranges}}), p.content)
}

func (p *piecesOf) whole() string { p.Helper(); return rangesSeen(p.m.get(p.path), p.content) }

// begins asks for a piece and returns what is left of its answer once it has
// begun.
func (p *piecesOf) begins(from, to int) (rest *http.Response, leave func()) {
	p.Helper()
	return p.beginsTo(fmt.Sprintf("bytes=%d-%d", from<<20, to<<20-1), begun)
}

// begun is how many bytes have come of a piece that begins, where the upstream
// holds up the rest.
const begun = 512 << 10

func (p *piecesOf) beginsTo(ranges string, n int) (rest *http.Response, leave func()) {
	p.Helper()
	ctx, leave := context.WithCancel(context.Background())
	p.Cleanup(leave)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.m.url+p.path, nil)
	if err != nil {
		p.Fatal(err)
	}
	if ranges != "" {
		req.Header.Set("Range", ranges)
	}
	resp, err := p.m.client.Do(req)
	if err == nil {
		p.Cleanup(func() { resp.Body.Close() })
		_, err = io.ReadFull(resp.Body, make([]byte, n))
	}
	if err != nil {
		p.Fatalf("an answer does not begin: %v", err)
	}
	return resp, leave
}

// ends says what is seen of an answer that has begun.
func (p *piecesOf) ends(resp *http.Response, from, to int) string {
	rest, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return fmt.Sprintf("%d, then %v", resp.StatusCode, err)
	case string(rest) != string(p.content[from<<20+begun:to<<20]):
		return fmt.Sprintf("%d with %d other bytes", resp.StatusCode, len(rest))
	}
	return fmt.Sprintf("%d, 1 part", resp.StatusCode)
}

// holds makes the upstream send n bytes of each answer, and the rest once there
// is more. It tells of each request that arrives.
func (p *piecesOf) holds(n int) (more, arrived chan struct{}) {
	more, arrived = make(chan struct{}), make(chan struct{}, 16)
	p.fake.Always("GET blobs", func(r *upstreamtest.Registry, w http.ResponseWriter, req *http.Request, q upstreamtest.Request) {
		arrived <- struct{}{}
		r.Answer(&pausing{w, n, more, req}, req, q)
	})
	return more, arrived
}

// restart ends the mirror as it is meant to end, and starts the next.
func (p *piecesOf) restart() {
	p.Helper()
	p.m.stop()
	p.m = newMirror(p.T, p.fake, p.s)
}

// kill starts a mirror on what the one before would leave if it was killed now.
func (p *piecesOf) kill() {
	p.Helper()
	left := p.TempDir()
	if err := os.CopyFS(left, os.DirFS(p.s.dir)); err != nil {
		p.Fatal(err)
	}
	p.m.stop()
	p.s.dir = left
	p.m = newMirror(p.T, p.fake, p.s)
}

// spoils does something to the file of the draft while the mirror is not
// running.
func (p *piecesOf) spoils(by func(path string)) {
	p.Helper()
	p.m.stop()
	maps, err := filepath.Glob(filepath.Join(p.s.dir, "drafts", "*.map"))
	if err != nil || len(maps) != 1 {
		p.Fatalf("the drafts are %q: %v", maps, err)
	}
	by(strings.TrimSuffix(maps[0], ".map"))
	p.m = newMirror(p.T, p.fake, p.s)
}

// comes waits until all of the blob is kept.
func (p *piecesOf) comes() {
	p.Helper()
	tooLong := time.After(20 * time.Second)
	for !p.m.keeps(p.digest) {
		select {
		case <-p.w.landed:
		case <-tooLong:
			p.Errorf("not all of it comes")
			return
		}
	}
}

// kept says what of the blob is there.
func (p *piecesOf) kept() string {
	kept, ok := p.m.store.Blobs().Kept(p.digest)
	switch {
	case p.m.keeps(p.digest):
		return "all of it"
	case ok:
		return sizeText(kept.Bytes)
	}
	return none
}

// asked says what the upstream was asked for of the blob.
func (p *piecesOf) asked() string {
	var all []string
	for _, line := range p.fake.Transcript() {
		words := strings.Fields(line) // method, kind, repository, digest and perhaps a range
		if words[1] == "manifests" {
			continue
		}
		said := "all"
		if len(words) == 5 {
			said = rangeText(words[4])
		}
		if words[0] == http.MethodHead {
			said = "`HEAD`"
		}
		if words[2] != "app" {
			said += " of " + words[2]
		}
		all = append(all, said)
	}
	if len(all) == 0 {
		return none
	}
	return strings.Join(all, ", ")
}

const none = "nothing"

func sizeText(n int64) string {
	switch {
	case n == 1:
		return "1 byte"
	case n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}

// rangeText is a range with its bounds in larger units, where they are whole.
func rangeText(of string) string {
	first, last, ok := strings.Cut(strings.TrimPrefix(of, "bytes="), "-")
	var from, to int64
	if _, err := fmt.Sscan(first, &from); !ok || err != nil {
		return of
	}
	if last == "" {
		return "from " + sizeText(from) + " on"
	}
	if _, err := fmt.Sscan(last, &to); err != nil {
		return of
	}
	to++
	if to < 1<<10 {
		return fmt.Sprintf("%d-%d bytes", from, to)
	}
	if from%(1<<20) == 0 && to%(1<<20) == 0 {
		return fmt.Sprintf("%d-%d MiB", from>>20, to>>20)
	}
	return fmt.Sprintf("%s-%s", sizeText(from), sizeText(to))
}

// storyLines runs the rows.
func storyLines(t *testing.T) string {
	var lines faultLines
	t.Run("stories", func(t *testing.T) {
		for i, row := range pieceStories() {
			t.Run(row.name, func(t *testing.T) {
				t.Parallel()
				runStory(t, row)
			})
			lines.add(i, row.name, row.sees, row.asked, row.kept, row.rest)
		}
	})
	return "\nA blob of 6 MiB, of which pieces are read. Then the mirror restarts, with an upstream that is well, and the whole is pulled: it is right, and kept.\n\n" +
		lines.table("what happens", "clients see", "the upstream is asked for", "there after the restart", "the whole is fetched with")
}

func runStory(t *testing.T, row pieceStory) {
	p := newPiecesOf(t, row)
	hold := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	hold("clients see", row.happens(p), row.sees)
	hold("the upstream was asked for", p.asked(), row.asked)
	p.m.stop()
	p.fake = upstreamtest.New(t) // no port is taken again while others look for one
	p.fake.AddImage("app", "1", p.content)
	p.s.remote, p.s.options = nil, nil
	p.w = watch(&p.s)
	p.m = newMirror(t, p.fake, p.s)
	hold("there is", p.kept(), row.kept)
	hold("the whole", p.whole(), sound)
	hold("it is fetched with", p.asked(), row.rest)
	p.comes()
	p.restart()
	p.fake.Stop()
	hold("the whole, with the upstream stopped", p.whole(), sound)
	if _, ok := p.m.store.Blobs().Kept(p.digest); ok {
		t.Error("a draft is left of a blob that is kept")
	}
}
