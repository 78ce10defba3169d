package proxy_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	pulling "github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// A row about an upstream that means harm, or has lost its mind.
type hostileRow struct {
	name string
	// target is blob, manifest or tags.
	target string
	// harm returns what the tag points at then, where that has changed.
	harm func(r *upstreamtest.Registry, content hostileContent) pull.Digest
	sees string
	auth upstreamtest.Auth
	// most is how many bytes of bodies may be taken for the one request.
	most int64
}

// hostileContent is what the client asks for.
type hostileContent struct {
	manifest, layer ocispec.Descriptor
	bytes           []byte        // of the layer
	reading         chan struct{} // closed once the client has bytes of an answer
}

// awaitReader lets a client have what was written, so that what follows breaks
// its connection. One that gets nothing is not waited for forever.
func (c hostileContent) awaitReader() {
	select {
	case <-c.reading:
	case <-time.After(10 * time.Second):
	}
}

// answering answers GETs with a header and a body that is written piece by
// piece for as long as somebody reads.
func answering(header http.Header, pieces func(write func([]byte) bool)) upstreamtest.Fault {
	return func(_ *upstreamtest.Registry, w http.ResponseWriter, _ *http.Request, _ upstreamtest.Request) {
		for key, values := range header {
			w.Header()[key] = values
		}
		w.WriteHeader(http.StatusOK)
		pieces(func(b []byte) bool {
			_, err := w.Write(b)
			return err == nil && http.NewResponseController(w).Flush() == nil
		})
	}
}

func typed(mediaType string) http.Header { return http.Header{"Content-Type": {mediaType}} }

// endless writes a beginning, and after it pieces without an end.
func endless(header http.Header, beginning []byte, piece string) upstreamtest.Fault {
	more := []byte(strings.Repeat(piece, 64<<10/len(piece)))
	return answering(header, func(write func([]byte) bool) {
		for ok := write(beginning); ok; ok = write(more) {
		}
	})
}

func hostileRows() []hostileRow {
	const manifests, blobs = "GET manifests", "GET blobs"
	always := func(what string, fault func(c hostileContent) upstreamtest.Fault) func(*upstreamtest.Registry, hostileContent) pull.Digest {
		return func(r *upstreamtest.Registry, c hostileContent) pull.Digest {
			r.Always(what, fault(c))
			return ""
		}
	}
	constant := func(fault upstreamtest.Fault) func(hostileContent) upstreamtest.Fault {
		return func(hostileContent) upstreamtest.Fault { return fault }
	}
	octets := typed("application/octet-stream")
	image := typed(ocispec.MediaTypeImageManifest)
	zipped := func(h http.Header) http.Header {
		h = h.Clone()
		h.Set("Content-Encoding", "gzip")
		return h
	}
	junk := func(c hostileContent) upstreamtest.Fault {
		return answering(octets, func(write func([]byte) bool) {
			write(make([]byte, 10<<10))
			c.awaitReader()
			for write(make([]byte, 64<<10)) {
			}
		})
	}
	headers := func(n, size int) upstreamtest.Fault {
		return func(r *upstreamtest.Registry, w http.ResponseWriter, req *http.Request, q upstreamtest.Request) {
			for i := range n {
				w.Header().Set("X-Header-"+strconv.Itoa(i), strings.Repeat("x", size))
			}
			upstreamtest.NoRange(nil)(r, w, req, q) // with the right bytes behind them
		}
	}
	// So many take net/http's server longer than a client waits, so they are sent
	// as they are, with the right bytes behind them.
	var many strings.Builder
	for i := range 100_000 {
		many.WriteString("X-Header-" + strconv.Itoa(i) + ": xxxxxxxxxx\r\n")
	}
	manyHeaders := func(c hostileContent) upstreamtest.Fault {
		return func(_ *upstreamtest.Registry, w http.ResponseWriter, req *http.Request, _ upstreamtest.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				panic(err)
			}
			defer conn.Close()
			body := c.bytes
			if req.Method == http.MethodHead {
				body = nil
			}
			_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n%s\r\n%s", ocispec.MediaTypeImageManifest, len(c.bytes), many.String(), body)
		}
	}
	var hops atomic.Int64
	redirects := func(r *upstreamtest.Registry, w http.ResponseWriter, req *http.Request, q upstreamtest.Request) {
		upstreamtest.Redirect(fmt.Sprintf("%s?hop=%d", req.URL.Path, hops.Add(1)))(r, w, req, q)
	}
	bomb := newBomb()
	const limit = 8 << 20
	return []hostileRow{
		{name: "endless garbage", target: "blob", harm: always(blobs, junk), sees: broken, most: 65 << 20},
		{name: "the right bytes, then endless garbage", target: "blob", harm: always(blobs, func(c hostileContent) upstreamtest.Fault {
			return endless(octets, c.bytes, "more")
		}), sees: sound, most: 1 << 20},
		{name: "endless JSON", target: "manifest", harm: always(manifests, constant(endless(image, []byte(`{"layers":[`), `{},`))), sees: "502 UNAVAILABLE", most: limit + 1},
		{name: "100 MiB of JSON", target: "manifest", harm: always(manifests, constant(upstreamtest.Body(ocispec.MediaTypeImageManifest, bytes.Repeat([]byte(" "), 100<<20)))), sees: "502 UNAVAILABLE", most: limit + 1},
		{name: "brackets nested four million deep", target: "manifest", harm: always(manifests, constant(upstreamtest.Body(ocispec.MediaTypeImageManifest, []byte(`{"layers":`+strings.Repeat("[", 4<<20))))), sees: "502 UNAVAILABLE", most: limit},
		{name: "indexes nested two thousand deep", target: "manifest", harm: func(r *upstreamtest.Registry, c hostileContent) pull.Digest {
			inner := c.manifest
			for range 2000 {
				inner = r.AddIndex("app", "1", inner)
			}
			return inner.Digest
		}, sees: sound, most: 64 << 10},
		{name: "an index that references itself, served for its child", target: "manifest", harm: func(r *upstreamtest.Registry, c hostileContent) pull.Digest {
			index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{c.manifest}}
			body, err := json.Marshal(index)
			if err != nil {
				panic(err)
			}
			r.Always("manifests app "+upstreamtest.Short(c.manifest.Digest.String()), upstreamtest.Body(index.MediaType, body))
			r.Always("manifests app 1", upstreamtest.Body(index.MediaType, body))
			return ""
		}, sees: "502 UNAVAILABLE", most: 64 << 10},
		{name: "10 MiB of headers", target: "manifest", harm: always(manifests, constant(headers(10, 1<<20))), sees: "502 UNAVAILABLE"},
		{name: "10 MiB of headers", target: "blob", harm: always(blobs, constant(headers(10, 1<<20))), sees: "502 UNAVAILABLE"},
		{name: "a hundred thousand headers", target: "manifest", harm: always(manifests, manyHeaders), sees: "502 UNAVAILABLE"},
		{name: "`Content-Encoding: gzip`, 256 MiB when decompressed", target: "manifest", harm: always(manifests, constant(answering(zipped(image), func(write func([]byte) bool) { write(bomb) }))), sees: "502 UNAVAILABLE", most: limit},
		{name: "`Content-Encoding: gzip`, 256 MiB when decompressed", target: "blob", harm: always(blobs, func(c hostileContent) upstreamtest.Fault {
			return answering(zipped(octets), func(write func([]byte) bool) {
				write(bomb[:20<<10])
				c.awaitReader()
				write(bomb[20<<10:])
			})
		}), sees: broken, most: limit},
		{name: "`Content-Encoding: gzip` over the right bytes", target: "blob", harm: always(blobs, func(c hostileContent) upstreamtest.Fault {
			return answering(zipped(octets), func(write func([]byte) bool) { write(c.bytes) })
		}), sees: sound, most: 1 << 20},
		{name: "each redirect leads to another", target: "manifest", harm: always(manifests, constant(redirects)), sees: "502 UNAVAILABLE"},
		{name: "each redirect leads to another", target: "blob", harm: always(blobs, constant(redirects)), sees: "502 UNAVAILABLE"},
		{name: "an endless token", target: "manifest", auth: upstreamtest.Auth{Scheme: "token"}, harm: func(r *upstreamtest.Registry, _ hostileContent) pull.Digest {
			r.Always("GET token", endless(typed("application/json"), []byte(`{"token":"`), "x"))
			return ""
		}, sees: "502 UNAVAILABLE"},
		{name: "an endless tag list", target: "tags", harm: always("GET tags", constant(endless(typed("application/json"), []byte(`{"tags":[`), `"tag",`))), sees: "502 UNAVAILABLE"},
	}
}

// newBomb is little, which is 256 MiB once it is inflated.
func newBomb() []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	zeros := make([]byte, 1<<20)
	for range 256 {
		_, _ = z.Write(zeros)
	}
	_ = z.Close()
	return b.Bytes()
}

// told closes reading at the first bytes of a body.
type told struct {
	http.RoundTripper
	reading chan struct{}
	once    sync.Once
}

func (r *told) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := r.RoundTripper.RoundTrip(req)
	if err == nil {
		resp.Body = toldBody{resp.Body, r}
	}
	return resp, err
}

type toldBody struct {
	io.ReadCloser
	told *told
}

func (b toldBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.told.once.Do(func() { close(b.told.reading) })
	}
	return n, err
}

func hostileFaults(t *testing.T) string {
	var lines faultLines
	t.Run("rows", func(t *testing.T) {
		for i, row := range hostileRows() {
			t.Run(row.name+", "+row.target, func(t *testing.T) {
				t.Parallel()
				sees, kept, taken, mended := runHostile(t, row)
				if sees != row.sees || kept != (row.sees == sound) || !mended {
					t.Errorf("the client saw %s, kept %v, mended %v", sees, kept, mended)
				}
				if taken > row.most {
					t.Errorf("%d bytes were taken, and %d may be", taken, row.most)
				}
				lines.add(i, row.name, row.target, sees, yes(kept), yes(mended))
			})
		}
	})
	return "## A malicious upstream\n\nThe content has never been pulled, but for a blob the manifest has given its size. Entrepot accepts at most " +
		"8 MiB of a manifest, at most as much of a blob as the upstream announces (or 64 MiB if only a manifest gives a size), and 64 KiB of headers; the limits apply to decompressed content as well.\n\n" +
		lines.table("the upstream sends", "for a", "the client sees", "cached", "the next pull works")
}

func runHostile(t *testing.T, row hostileRow) (sees string, kept bool, taken int64, mended bool) {
	const size = 64 << 10
	fake := upstreamtest.New(t, upstreamtest.WithAuth(row.auth))
	content := hostileContent{bytes: upstreamtest.Bytes(1, size), reading: make(chan struct{})}
	manifest, m := fake.AddImage("app", "1", content.bytes)
	content.manifest, content.layer = manifest, m.Layers[0]
	var received atomic.Int64
	s := setup{dir: t.TempDir(), options: func(o *pulling.Options) {
		o.Events.Received = func(_ string, n int64) { received.Add(n) }
	}}
	path, d := "/v2/app/manifests/1", manifest.Digest
	switch row.target {
	case "blob":
		path, d = "/v2/app/blobs/"+content.layer.Digest.String(), content.layer.Digest
		first := newMirror(t, fake, s)
		if a := first.get("/v2/app/manifests/1"); a.status != http.StatusOK {
			t.Fatalf("the manifest: %d %s", a.status, a.body)
		}
		first.stop()
	case "tags":
		path = "/v2/app/tags/list"
	}
	if changed := row.harm(fake, content); changed != "" {
		d = changed
	}
	if strings.HasSuffix(row.name, "for its child") {
		path = "/v2/app/manifests/" + manifest.Digest.String()
	}
	received.Store(0)
	mir := newMirror(t, fake, s)
	mir.client.Transport = &told{RoundTripper: mir.client.Transport, reading: content.reading}
	a := mir.get(path)
	if a.header.Get("Content-Encoding") != "" {
		t.Errorf("the client is told of the encoding %s", a.header.Get("Content-Encoding"))
	}
	if sees = outcome(a, d); sees == broken && len(a.body) >= size {
		t.Errorf("all %d bytes went out before the connection broke", len(a.body))
	}
	mir.stop() // with it ends every download
	taken = received.Load()
	fake.Mend()
	again := newMirror(t, fake, setup{dir: s.dir})
	kept = again.keeps(d)
	next := again.get(path)
	if row.target == "tags" {
		return sees, false, taken, next.status == http.StatusOK
	}
	return sees, kept, taken, outcome(next, d) == sound
}
