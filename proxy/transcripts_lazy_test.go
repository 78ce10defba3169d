package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// lazyLayer is a layer that snapshotters read in pieces, as its files are opened.
type lazyLayer struct {
	t       *testing.T
	m       *mirror
	digest  pull.Digest
	content []byte
}

// Snapshotters say which registry they mean, as containerd does.
func (l lazyLayer) path() string { return "/v2/app/blobs/" + l.digest.String() + "?ns=hub.test" }

// line is how the upstream writes down that it was asked for the layer.
func (l lazyLayer) line(method, byteRange string) string {
	return strings.TrimSpace(method + " blobs app " + upstreamtest.Short(l.digest.String()) + " " + byteRange)
}

// footer is where the table of contents of an eStargz layer is looked for.
func (l lazyLayer) footer() section { return section{len(l.content) - 51, len(l.content) - 1} }

// section is from its first byte to its last.
type section [2]int

func (s section) String() string        { return fmt.Sprintf("%d-%d", s[0], s[1]) }
func (s section) asRange() string       { return "bytes=" + s.String() }
func (l lazyLayer) is(s section) string { return fmt.Sprintf("bytes %s/%d", s, len(l.content)) }

func (l lazyLayer) ask(byteRange string) errorResponse {
	l.t.Helper()
	return l.m.do(http.MethodGet, l.path(), http.Header{"Range": {byteRange}, "Accept-Encoding": {"identity"}})
}

// piece asks for one range, in the words of byteRange.
func (l lazyLayer) piece(byteRange string, want section) {
	l.t.Helper()
	a := l.ask(byteRange)
	if a.status != http.StatusPartialContent || a.broken != nil || !bytes.Equal(a.body, l.content[want[0]:want[1]+1]) {
		l.t.Errorf("%s: %d with %d bytes, or others, want 206 with %s: %v", byteRange, a.status, len(a.body), want, a.broken)
	}
	for key, want := range map[string]string{"Content-Range": l.is(want), "Content-Type": "application/octet-stream", "Content-Encoding": ""} {
		if got := a.header.Get(key); got != want {
			l.t.Errorf("%s: %s is %q, want %q", byteRange, key, got, want)
		}
	}
}

// pieces asks for several ranges at once, which have to come one by one.
func (l lazyLayer) pieces(want ...section) {
	l.t.Helper()
	var all []string
	for _, s := range want {
		all = append(all, s.String())
	}
	a := l.ask("bytes=" + strings.Join(all, ","))
	mediaType, params, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	if a.status != http.StatusPartialContent || a.broken != nil || err != nil || mediaType != "multipart/byteranges" {
		l.t.Fatalf("%d ranges: %d of type %q, want 206 of multipart/byteranges: %v, %v", len(want), a.status, mediaType, a.broken, err)
	}
	if got := a.header.Get("Content-Length"); got != fmt.Sprint(len(a.body)) {
		l.t.Errorf("%d ranges: Content-Length is %s of %d bytes", len(want), got, len(a.body))
	}
	parts := multipart.NewReader(bytes.NewReader(a.body), params["boundary"])
	for _, s := range want {
		part, err := parts.NextPart()
		if err != nil {
			l.t.Fatalf("%s is not among the parts: %v", s, err)
		}
		body, err := io.ReadAll(part)
		if err != nil || part.Header.Get("Content-Range") != l.is(s) || !bytes.Equal(body, l.content[s[0]:s[1]+1]) {
			l.t.Errorf("the part for %s is %s with %d bytes, or others: %v", s, part.Header.Get("Content-Range"), len(body), err)
		}
	}
	if _, err := parts.NextPart(); !errors.Is(err, io.EOF) {
		l.t.Errorf("behind the last part: %v", err)
	}
}

// size is what HEAD tells, and that ranges can be asked for.
func (l lazyLayer) size() {
	l.t.Helper()
	a := l.m.head(l.path())
	if a.status != http.StatusOK || a.header.Get("Content-Length") != fmt.Sprint(len(l.content)) || a.header.Get("Accept-Ranges") != "bytes" {
		l.t.Errorf("HEAD: %d with Content-Length %q and Accept-Ranges %q", a.status, a.header.Get("Content-Length"), a.header.Get("Accept-Ranges"))
	}
}

// whole asks for everything.
func (l lazyLayer) whole() {
	l.t.Helper()
	if a := l.m.get(l.path()); a.status != http.StatusOK || a.broken != nil || !bytes.Equal(a.body, l.content) {
		l.t.Errorf("the whole: %d with %d bytes, or others, of %d: %v", a.status, len(a.body), len(l.content), a.broken)
	}
}

// small are many sections between two offsets, none of which touch.
func small(from, to, n int) (all []section) {
	for i := range n {
		at := from + i*(to-from)/n
		all = append(all, section{at, at + 99 + i})
	}
	return all
}

// pausing holds a body up after some bytes until there is more.
type pausing struct {
	http.ResponseWriter
	left int
	more <-chan struct{}
	req  *http.Request
}

func (p *pausing) Write(b []byte) (int, error) {
	n, err := p.ResponseWriter.Write(b[:min(p.left, len(b))])
	if p.left -= n; err != nil || n == len(b) {
		return n, err
	}
	if err := http.NewResponseController(p.ResponseWriter).Flush(); err != nil {
		return n, err
	}
	select {
	case <-p.more:
	case <-p.req.Context().Done():
		return n, context.Cause(p.req.Context())
	}
	rest, err := p.ResponseWriter.Write(b[n:])
	return n + rest, err
}

const (
	lazySize = 12 << 20
	come     = 1 << 20 // what has come of it while the rest is held up
)

// newLazyLayer is a layer of which nobody has asked for a byte, but whose
// manifest has been pulled. An upstream that is asked for all of it sends some,
// and the rest once there is more; ranges it sends at once.
func newLazyLayer(t *testing.T, more <-chan struct{}, s setup) (lazyLayer, *upstreamtest.Registry) {
	t.Helper()
	fake := upstreamtest.New(t)
	content := upstreamtest.Bytes(7, lazySize)
	_, manifest := fake.AddImage("app", "1", content)
	at := make(chan struct{})
	close(at)
	once := upstreamtest.Gate(at)
	fake.Always("GET blobs", func(r *upstreamtest.Registry, w http.ResponseWriter, req *http.Request, q upstreamtest.Request) {
		if q.Range == "" {
			w = &pausing{w, come, more, req}
		}
		once(r, w, req, q)
	})
	// What is held up must not pass for broken on a slow machine.
	s.remote = func(o *upstream.RemoteOptions) { o.Waits.Idle = time.Minute }
	l := lazyLayer{t: t, m: newMirror(t, fake, s), digest: manifest.Layers[0].Digest, content: content}
	if a := l.m.get("/v2/app/manifests/1"); a.status != http.StatusOK {
		t.Fatalf("the manifest: %d", a.status)
	}
	l.m.wantAsked("GET manifests app 1")
	return l, fake
}

// TestW20W23ALayerIsReadLazily takes a layer through its life: nobody has asked
// for it, it is on its way, and it is here. The patterns are those of the
// snapshotters of stargz and of SOCI.
func TestW20W23ALayerIsReadLazily(t *testing.T) {
	more, dir := make(chan struct{}), t.TempDir()
	l, fake := newLazyLayer(t, more, setup{dir: dir})
	near, far := small(0, come/2, 40), small(lazySize/2, lazySize-1000, 3)

	// On a miss only what is asked for is fetched.
	l.piece("bytes=0-1", section{0, 1})
	l.m.wantAsked(l.line("GET", "bytes=0-1"))
	l.size()
	l.piece("bytes=0-1", section{0, 1})
	l.m.wantAsked()
	l.piece(l.footer().asRange(), l.footer())
	l.m.wantAsked(l.line("GET", l.footer().asRange()))
	l.piece("bytes=-51", l.footer())
	l.m.wantAsked()
	l.piece(near[20].asRange(), near[20])
	l.m.wantAsked(l.line("GET", near[20].asRange()))
	l.pieces(near[20], far[0], far[1], far[2])
	l.m.wantAsked(l.line("GET", far[0].asRange()), l.line("GET", far[1].asRange()), l.line("GET", far[2].asRange()))
	l.pieces(near...) // a gap is cheaper than a request
	if asked := fake.Transcript(); len(asked) > 5 {
		t.Errorf("%d requests for 40 pieces near to each other: %q", len(asked), asked)
	}
	if got := fake.BlobBytes(); got > come {
		t.Errorf("%d bytes crossed for some small pieces", got)
	}

	// Then the whole: each byte has crossed once.
	close(more)
	l.whole()
	fake.Transcript()
	l.m.stop()
	fake.Stop()
	if got := fake.BlobBytes(); got > lazySize+lazySize/64 {
		t.Errorf("%d bytes crossed, and the layer has %d", got, lazySize)
	}

	// On a hit, with the upstream unplugged.
	l.m = newMirror(t, fake, setup{dir: dir})
	if !l.m.keeps(l.digest) {
		t.Fatal("the layer is not kept")
	}
	l.piece("bytes=0-1", section{0, 1})
	l.size()
	l.piece(l.footer().asRange(), l.footer())
	l.piece("bytes=-51", l.footer())
	l.pieces(append(near, far...)...)
	l.m.wantAsked()
}

func TestW21RangesWithoutAnEndThatAreAbortedAreOneDownload(t *testing.T) {
	const clients, chunk = 4, 64 << 10
	more, arrived := make(chan struct{}), make(chan struct{}, clients)
	l, fake := newLazyLayer(t, more, setup{wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				arrived <- struct{}{}
			}
			next.ServeHTTP(w, r)
		})
	}})
	// The first is what brings the layer on its way; it leaves while most is
	// yet to come.
	l.abort(0, chunk)
	<-arrived
	var all sync.WaitGroup
	for i := 1; i < clients; i++ {
		all.Go(func() { l.abort(i*lazySize/clients, chunk) })
	}
	for range clients - 1 {
		<-arrived
	}
	close(more)
	all.Wait()
	l.whole()
	l.m.wantAsked(l.line("GET", ""))
	fake.Stop() // which ends what it still counts
	if got := fake.BlobBytes(); got != lazySize {
		t.Errorf("%d bytes crossed, want the layer's %d", got, lazySize)
	}
}

// abort asks for all from an offset on, as containerd does for each of the
// chunks that it fetches beside each other, and leaves with n bytes of it.
func (l lazyLayer) abort(from, n int) {
	ctx, leave := context.WithCancel(l.t.Context())
	defer leave()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.m.url+l.path(), nil)
	if err != nil {
		l.t.Error(err)
		return
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
	resp, err := l.m.client.Do(req)
	if err != nil {
		l.t.Errorf("from %d on: %v", from, err)
		return
	}
	defer resp.Body.Close()
	got := make([]byte, n)
	_, err = io.ReadFull(resp.Body, got)
	if want := l.is(section{from, len(l.content) - 1}); resp.StatusCode != http.StatusPartialContent || resp.Header.Get("Content-Range") != want {
		l.t.Errorf("from %d on: %s of %q, want 206 of %q", from, resp.Status, resp.Header.Get("Content-Range"), want)
	}
	if err != nil || !bytes.Equal(got, l.content[from:from+n]) {
		l.t.Errorf("from %d on: other bytes, %v", from, err)
	}
}
