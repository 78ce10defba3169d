package proxy

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/pull"
)

// TestF4F5HeadersHaveALimitByKind asks with headers that are as large as they
// may be, measured on the wire, and one byte larger.
func TestF4F5HeadersHaveALimitByKind(t *testing.T) {
	b := numbered(1000)
	p := blobs(&content{bytes: b})
	p.manifest = func(pull.Repository, string) (pull.Manifest, error) {
		return pull.Manifest{Descriptor: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(b), Size: 1000}, Bytes: b}, nil
	}
	f := newFace(t, p)
	d := digest.FromBytes(b).String()
	commas := func(n int) string { return strings.Repeat(",", n) }
	filled := func(n int) string { return strings.Repeat("x", n) }
	many := func(n int) string { return "x" + strings.Repeat("\r\nX: ", n/5) + strings.Repeat("x", n%5) }
	query := func(n int) string { return "/v2/?" + strings.Repeat("x", n) }
	for _, c := range []struct {
		name, method, path, field string
		fill                      func(int) string
		limit, within, beyond     int
	}{
		{"F5: the ranges of a blob", "GET", "/v2/app/blobs/" + d, "Range: bytes=4-5", commas, maxBlobHeader, 206, 400},
		{"a blob, with another field", "GET", "/v2/app/blobs/" + d, "Authorization: ", filled, maxBlobHeader, 200, 400},
		{"HEAD of a blob", "HEAD", "/v2/app/blobs/" + d, "X: ", filled, maxBlobHeader, 200, 400},
		{"a manifest", "GET", "/v2/app/manifests/" + d, "X: ", filled, maxOtherHeader, 200, 400},
		{"a manifest, with many fields", "GET", "/v2/app/manifests/" + d, "X: ", many, maxOtherHeader, 200, 400},
		{"the ping", "GET", "/v2/", "Cookie: ", filled, maxOtherHeader, 200, 400},
		{"what is no endpoint", "GET", "/", "X: ", filled, maxOtherHeader, 404, 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			for more, want := range map[int]int{0: c.within, 1: c.beyond, maxHeader - c.limit: c.beyond} {
				request := func(fill int) string {
					return c.method + " " + c.path + " HTTP/1.1\r\nHost: m\r\n" + c.field + c.fill(fill) + "\r\n\r\n"
				}
				text := request(c.limit + more - len(request(0)))
				if more == 0 && len(text) > c.limit {
					t.Fatalf("%d bytes", len(text))
				}
				if resp := raw(t, f, text); resp.StatusCode != want {
					t.Errorf("%d bytes: %s, want %d", len(text), resp.Status, want)
				}
			}
		})
	}
	t.Run("the first line", func(t *testing.T) {
		for fill, want := range map[int]int{16000: 200, maxOtherHeader: 400, maxBlobHeader: 400} {
			for path, status := range map[string]int{query(fill): want, "/v2/app/blobs/" + d + query(fill)[4:]: want} {
				if resp := raw(t, f, "GET "+path+" HTTP/1.1\r\nHost: m\r\n\r\n"); resp.StatusCode != status {
					t.Errorf("%d bytes: %s, want %d", len(path), resp.Status, status)
				}
			}
		}
	})
}

// A blob may take hours, and what a request has asked for with a quarter of a
// megabyte is known by then.
func TestF5ALargeHeaderIsForgottenBeforeTheBlobIsSent(t *testing.T) {
	b := numbered(1000)
	for field, want := range map[string]string{"bytes=4-5": "bytes=4-5", "bytes=4-5" + strings.Repeat(",", 47<<10): ""} {
		t.Run(fmt.Sprintf("%d bytes", len(field)), func(t *testing.T) {
			req := httptest.NewRequest(http.MethodGet, blobPath(b), nil)
			req.Header.Set("Range", field)
			req.Header.Set("User-Agent", "stargz-snapshotter")
			p := blobs(&content{bytes: b})
			open := p.blob
			p.blob = func(repo pull.Repository, d digest.Digest) (pull.Blob, error) {
				if got := req.Header.Get("Range"); got != want {
					t.Errorf("%d bytes of ranges are still there", len(got))
				}
				return open(repo, d)
			}
			w := httptest.NewRecorder()
			New(Options{Puller: p, Upstreams: upstreamsForTests(), Logger: quiet()}).ServeHTTP(w, req)
			if w.Code != http.StatusPartialContent || w.Body.String() != string(b[4:6]) || req.UserAgent() != "stargz-snapshotter" {
				t.Errorf("%d with %q for %s", w.Code, w.Body, req.UserAgent())
			}
		})
	}
}
