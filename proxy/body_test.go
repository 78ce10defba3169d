package proxy

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/pull"
)

// dial connects to a face without a client of net/http between.
func dial(t *testing.T, f *face) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", f.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn, bufio.NewReader(conn)
}

// answered reads one answer to its end.
func answered(t *testing.T, r *bufio.Reader, method string) *http.Response {
	t.Helper()
	resp, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp
}

func TestW49ChunksOfWhichThereAreNoneAreNoBody(t *testing.T) {
	f := newFace(t, manifests(ocispec.MediaTypeImageIndex, []byte("{}"), nil))
	for _, c := range []struct{ name, method, header, body string }{
		{"GET", "GET", "", "0\r\n\r\n"},
		{"HEAD", "HEAD", "", "0\r\n\r\n"},
		{"the end in many zeros", "GET", "", "0000\r\n\r\n"},
		{"the end with an extension", "GET", "", "0;x=y\r\n\r\n"},
		{"a trailer behind them", "GET", "Trailer: X-Checksum\r\n", "0\r\nX-Checksum: none\r\n\r\n"},
		{"a length of zero beside them", "GET", "Content-Length: 0\r\n", "0\r\n\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, answers := dial(t, f)
			request := c.method + " /v2/app/manifests/1 HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n" + c.header + "\r\n" + c.body
			// Thrice on one connection: what follows an empty body is a request.
			for range 3 {
				if _, err := io.WriteString(conn, request); err != nil {
					t.Fatal(err)
				}
				if resp := answered(t, answers, c.method); resp.StatusCode != http.StatusOK || resp.Close {
					t.Errorf("%s, closes: %v", resp.Status, resp.Close)
				}
			}
		})
	}
	t.Run("not found", func(t *testing.T) {
		conn, answers := dial(t, f)
		for range 2 {
			if _, err := io.WriteString(conn, "GET /v2/foo.example/app/manifests/1 HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			if resp := answered(t, answers, "GET"); resp.StatusCode != http.StatusNotFound || resp.Close {
				t.Errorf("%s, closes: %v", resp.Status, resp.Close)
			}
		}
	})
	t.Run("a client that waits to be asked for them", func(t *testing.T) {
		conn, answers := dial(t, f)
		for range 2 {
			if _, err := io.WriteString(conn, "GET /v2/app/manifests/1 HTTP/1.1\r\nHost: m\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			if line, err := answers.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
				t.Fatalf("%q, %v", line, err)
			}
			if _, err := answers.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(conn, "0\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			if resp := answered(t, answers, "GET"); resp.StatusCode != http.StatusOK || resp.Close {
				t.Errorf("%s, closes: %v", resp.Status, resp.Close)
			}
		}
	})
}

func TestABodyWithBytesIsRefusedAndNothingFollowsIt(t *testing.T) {
	t.Parallel() // a body that does not end is waited for
	f := newFace(t, manifests(ocispec.MediaTypeImageIndex, []byte("{}"), nil))
	for name, request := range map[string]string{
		"chunks":                  "GET /v2/app/manifests/1 HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
		"a chunk that never ends": "GET /v2/app/manifests/1 HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\nx",
		"no chunks at all":        "GET /v2/app/manifests/1 HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
		"chunks on HEAD":          "HEAD /v2/app/manifests/1 HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
		"a length":                "GET /v2/app/manifests/1 HTTP/1.1\r\nHost: m\r\nContent-Length: 2\r\n\r\n{}",
		"a length that waits":     "GET /v2/app/manifests/1 HTTP/1.1\r\nHost: m\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
		"a smuggled request":      "GET /v2/app/manifests/1 HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n1a\r\nGET /v2/ HTTP/1.1\r\nHost: m\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			conn, answers := dial(t, f)
			began := time.Now()
			if _, err := io.WriteString(conn, request+"GET /v2/ HTTP/1.1\r\nHost: m\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			resp := answered(t, answers, strings.Fields(request)[0])
			if resp.StatusCode != http.StatusBadRequest || !resp.Close {
				t.Errorf("%s, closes: %v", resp.Status, resp.Close)
			}
			if took := time.Since(began); took > readBodyTimeout/2 {
				t.Errorf("after %s", took)
			}
			conn.SetReadDeadline(time.Now().Add(2 * readBodyTimeout))
			if more, err := io.ReadAll(answers); len(more) > 0 {
				t.Errorf("more came: %q, %v", more, err)
			}
		})
	}
}

func TestABodyThatDoesNotEndIsRefusedInTime(t *testing.T) {
	for name, c := range map[string]struct {
		body  string
		after time.Duration
	}{
		"no chunk comes":        {"", readBodyTimeout},
		"half a chunk's length": {"0", readBodyTimeout},
		"a chunk comes":         {"4\r\nx", 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn := piped(t, manifests(ocispec.MediaTypeImageIndex, []byte("{}"), nil))
				began := time.Now()
				if _, err := io.WriteString(conn, "GET /v2/app/manifests/1 HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n"+c.body); err != nil {
					t.Fatal(err)
				}
				resp := answered(t, bufio.NewReader(conn), "GET")
				if took := time.Since(began); resp.StatusCode != http.StatusBadRequest || !resp.Close || took != c.after {
					t.Errorf("%s after %s, closes: %v", resp.Status, took, resp.Close)
				}
			})
		})
	}
}

// slowly is a Puller whose manifests take a while, unless the client leaves.
type slowly struct {
	Puller
	takes time.Duration
}

func (s slowly) ManifestFor(ctx context.Context, repo pull.Repository, ref string, types []string, wish ...pull.Freshness) (pull.Manifest, error) {
	select {
	case <-time.After(s.takes):
		return s.Puller.ManifestFor(ctx, repo, ref, types, wish...)
	case <-ctx.Done():
		return pull.Manifest{}, ctx.Err()
	}
}

func TestTheAnswerToAnEmptyBodyMayTakeItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := piped(t, slowly{manifests(ocispec.MediaTypeImageIndex, []byte("{}"), nil), 4 * readBodyTimeout})
		answers := bufio.NewReader(conn)
		for range 2 {
			if _, err := io.WriteString(conn, "GET /v2/app/manifests/1 HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			if resp := answered(t, answers, "GET"); resp.StatusCode != http.StatusOK || resp.Close {
				t.Errorf("%s, closes: %v", resp.Status, resp.Close)
			}
		}
	})
}

func TestOverHTTP2ABodyIsItsStreamsAlone(t *testing.T) {
	server := httptest.NewUnstartedServer(nil)
	server.Config = HTTPServer(New(Options{
		Puller: manifests(ocispec.MediaTypeImageIndex, []byte("{}"), nil), Upstreams: upstreamsForTests(), Logger: quiet(),
	}), quiet())
	var connections atomic.Int32
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	for i, c := range []struct {
		body   string
		status int
	}{{"", 200}, {"", 200}, {"{}", 400}, {"", 200}} {
		// A body of which nobody can tell the length goes out in frames.
		req, err := http.NewRequest(http.MethodGet, server.URL+"/v2/app/manifests/1", io.MultiReader(strings.NewReader(c.body)))
		if err != nil {
			t.Fatal(err)
		}
		if i == 1 {
			req.Header.Set("Expect", "100-continue")
		}
		resp, err := server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.status || resp.ProtoMajor != 2 {
			t.Errorf("%d: %s %s", i, resp.Proto, resp.Status)
		}
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}
