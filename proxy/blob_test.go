package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream"
)

func blobPath(b []byte) string { return "/v2/app/blobs/" + digest.FromBytes(b).String() }

func TestW4BlobsAreOctetStreamsOnGetAndHead(t *testing.T) {
	for name, b := range map[string][]byte{"the empty descriptor": []byte("{}"), "nothing": {}, "a layer": numbered(1 << 20)} {
		t.Run(name, func(t *testing.T) {
			f := newFace(t, blobs(&content{bytes: b}))
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				got := f.do(method, blobPath(b), "Accept-Encoding", "zstd, gzip, deflate") // W2
				if got.status != http.StatusOK || got.length != int64(len(b)) || got.cut != nil {
					t.Errorf("%s: %d with %d bytes, %v", method, got.status, got.length, got.cut)
				}
				if method == http.MethodGet && !bytes.Equal(got.body, b) {
					t.Error("other bytes")
				}
				got.wantHeader(t, "Content-Type", "application/octet-stream", "Docker-Content-Digest", digest.FromBytes(b).String(),
					"Accept-Ranges", "bytes", "Etag", `"`+digest.FromBytes(b).String()+`"`, "Content-Encoding", "", "Content-Range", "")
			}
		})
	}
}

func TestBlobIsNotBroughtHereForItsHeaders(t *testing.T) {
	b := []byte("{}")
	p := blobs(&content{bytes: b})
	p.blob = func(pull.Repository, digest.Digest) (pull.Blob, error) {
		t.Error("the blob was asked for")
		return nil, upstream.ErrNotFound
	}
	f := newFace(t, p)
	etag := `"` + digest.FromBytes(b).String() + `"`
	if got := f.do(http.MethodHead, blobPath(b)); got.status != http.StatusOK || got.length != 2 {
		t.Errorf("HEAD: %d, %d bytes", got.status, got.length)
	}
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		got := f.do(method, blobPath(b), "If-None-Match", etag)
		if got.status != http.StatusNotModified {
			t.Errorf("%s of what the client has: %d", method, got.status)
		}
		got.wantHeader(t, "Etag", etag, "Content-Type", "")
	}
}

func TestW20OneRangeIs206(t *testing.T) {
	b := numbered(700_000) // of three pieces
	for name, c := range map[string]*content{"in memory": {bytes: b}, "on disk": {bytes: b, path: onDisk(t, b)}} {
		f := newFace(t, blobs(c))
		for header, at := range map[string]span{
			"bytes=0-1":           {0, 2}, // W23
			"bytes=600000-":       {600_000, 100_000},
			"bytes=5-600004":      {5, 600_000},
			"bytes=-7":            {699_993, 7},
			"bytes=0-":            {0, 700_000},
			"bytes=699999-900000": {699_999, 1},
			"bytes=5-6,900000-":   {5, 2},
		} {
			t.Run(name+", "+header, func(t *testing.T) {
				got := f.do(http.MethodGet, blobPath(b), "Range", header)
				if got.status != http.StatusPartialContent || got.length != at.n || !bytes.Equal(got.body, b[at.off:at.off+at.n]) {
					t.Errorf("%d with %d bytes, %v", got.status, got.length, got.cut)
				}
				got.wantHeader(t, "Content-Range", fmt.Sprintf("bytes %d-%d/700000", at.off, at.off+at.n-1), "Accept-Ranges", "bytes",
					"Content-Type", "application/octet-stream", "Docker-Content-Digest", digest.FromBytes(b).String())
			})
		}
	}
}

func TestW20SeveralRangesAreMultipart(t *testing.T) {
	b := numbered(700_000)
	f := newFace(t, blobs(&content{bytes: b}))
	spans := []span{{0, 2}, {699_990, 10}, {100_000, 300_000}}
	got := f.do(http.MethodGet, blobPath(b), "Range", "bytes=0-1, -10, 100000-399999")
	if got.status != http.StatusPartialContent || got.cut != nil || got.length != int64(len(got.body)) {
		t.Fatalf("%d with %d of %d bytes, %v", got.status, len(got.body), got.length, got.cut)
	}
	got.wantHeader(t, "Content-Range", "")
	mediaType, params, err := mime.ParseMediaType(got.header.Get("Content-Type"))
	if err != nil || mediaType != "multipart/byteranges" {
		t.Fatalf("%s, %v", mediaType, err)
	}
	parts := multipart.NewReader(bytes.NewReader(got.body), params["boundary"])
	for _, at := range spans {
		part, err := parts.NextPart()
		if err != nil {
			t.Fatal(err)
		}
		sent, err := io.ReadAll(part)
		if err != nil || !bytes.Equal(sent, b[at.off:at.off+at.n]) {
			t.Errorf("%v: %d bytes, %v", at, len(sent), err)
		}
		if part.Header.Get("Content-Range") != fmt.Sprintf("bytes %d-%d/700000", at.off, at.off+at.n-1) || part.Header.Get("Content-Type") != octetStream {
			t.Errorf("%v: %v", at, part.Header)
		}
	}
	if _, err := parts.NextPart(); !errors.Is(err, io.EOF) {
		t.Errorf("behind the last part: %v", err)
	}
}

func TestRangeBehindTheEndIs416WithTheSize(t *testing.T) {
	b := numbered(10)
	f := newFace(t, blobs(&content{bytes: b}))
	got := f.do(http.MethodGet, blobPath(b), "Range", "bytes=10-")
	if got.status != http.StatusRequestedRangeNotSatisfiable || got.code() != codeRange {
		t.Errorf("%d %s", got.status, got.body)
	}
	got.wantHeader(t, "Content-Range", "bytes */10", "Content-Type", "application/json", "Etag", "", "Docker-Content-Digest", "")
}

func TestFailureBeforeTheFirstByteIsAnAnswer(t *testing.T) {
	b := numbered(10)
	f := newFace(t, blobs(&content{bytes: b, err: fmt.Errorf("blob: %w", upstream.ErrTimeout)}))
	for _, header := range []string{"", "bytes=4-", "bytes=0-1,4-5"} {
		got := f.do(http.MethodGet, blobPath(b), "Range", header)
		if got.status != http.StatusGatewayTimeout || got.code() != codeUnavailable || got.cut != nil {
			t.Errorf("range %q: %d %s, %v", header, got.status, got.body, got.cut)
		}
		got.wantHeader(t, "Content-Type", "application/json", "Content-Length", strconv.Itoa(len(got.body)), "Etag", "", "Docker-Content-Digest", "", "Content-Range", "", "Accept-Ranges", "")
	}
}

func TestW22FailureAfterTheFirstByteBreaksTheConnection(t *testing.T) {
	b := numbered(700_000)
	for name, c := range map[string]*content{
		"with an error":                         {bytes: b, after: 300_000, err: upstream.ErrUnavailable},
		"with an error behind a handful":        {bytes: b, after: 1, err: upstream.ErrUnavailable},
		"with an error, and no size":            {bytes: b, after: 300_000, err: upstream.ErrUnavailable, unknown: true},
		"with an error at the end, and no size": {bytes: b, after: 700_000, err: upstream.ErrUnavailable, unknown: true},
		"without an error":                      {bytes: b, short: 1},
	} {
		for _, header := range []string{"", "bytes=1-", "bytes=0-299999,350000-699999"} {
			t.Run(name+", range "+header, func(t *testing.T) {
				got := newFace(t, blobs(c)).do(http.MethodGet, blobPath(b), "Range", header)
				if c.unknown && header != "" {
					// A range of it waits for the size, so nothing has gone out.
					if got.status != http.StatusBadGateway || got.cut != nil {
						t.Errorf("%d with %d bytes, %v", got.status, len(got.body), got.cut)
					}
					return
				}
				if got.cut == nil {
					t.Errorf("%d with %d bytes looks whole", got.status, len(got.body))
				}
			})
		}
	}
}

func TestFirstBytesGoOutAtOnce(t *testing.T) {
	for name, n := range map[string]int{"a handful": 3, "more than a buffer": 10_000} {
		t.Run(name, func(t *testing.T) {
			b := numbered(100_000)
			slow := &dripping{content: content{bytes: b}, first: n, rest: make(chan struct{})}
			f := newFace(t, script{blob: func(pull.Repository, digest.Digest) (pull.Blob, error) { return slow, nil }})
			resp, err := f.client.Get(f.server.URL + blobPath(b))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			head := make([]byte, n)
			if _, err := io.ReadFull(resp.Body, head); err != nil || !bytes.Equal(head, b[:n]) {
				t.Errorf("the first bytes: %v", err)
			}
			close(slow.rest)
			if tail, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(tail, b[n:]) {
				t.Errorf("the rest: %d bytes, %v", len(tail), err)
			}
		})
	}
}

// dripping is a blob whose first bytes come long before the rest.
type dripping struct {
	content
	first int
	rest  chan struct{}
}

func (d *dripping) WriteRange(_ context.Context, w io.Writer, _, _ int64) (int64, error) {
	first, err := io.Copy(w, io.LimitReader(bytes.NewReader(d.bytes), int64(d.first)))
	if err != nil {
		return first, err
	}
	<-d.rest
	rest, err := w.Write(d.bytes[d.first:])
	return first + int64(rest), err
}

func TestSendfileIsUsedForWhatIsOnDisk(t *testing.T) {
	b := numbered(1 << 20)
	listener := &watched{}
	f := newFace(t, blobs(&content{bytes: b, path: onDisk(t, b)}), func(_ *Options, server *httptest.Server) {
		listener.Listener = server.Listener
		server.Listener = listener
	})
	got := f.do(http.MethodGet, blobPath(b))
	if !bytes.Equal(got.body, b) {
		t.Fatalf("%d bytes, %v", len(got.body), got.cut)
	}
	f.server.Close() // the last piece is counted when it has been sent, which the client may see before
	// All but what fills the first packet goes from file to socket.
	if sent := listener.sentFile.Load(); sent < int64(len(b))-1024 {
		t.Errorf("%d bytes were sent by the kernel", sent)
	}
}

// watched is a listener whose connections count what the kernel sends by
// itself: what net.TCPConn.ReadFrom is given in the form that sendfile(2) takes.
type watched struct {
	net.Listener
	sentFile atomic.Int64
}

func (w *watched) Accept() (net.Conn, error) {
	conn, err := w.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &watchedConn{conn.(*net.TCPConn), w}, nil
}

type watchedConn struct {
	*net.TCPConn
	w *watched
}

func (c *watchedConn) ReadFrom(src io.Reader) (int64, error) {
	n, err := c.TCPConn.ReadFrom(src)
	if limited, ok := src.(*io.LimitedReader); ok {
		if _, isFile := limited.R.(syscall.Conn); isFile {
			c.w.sentFile.Add(n)
		}
	}
	return n, err
}
