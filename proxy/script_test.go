package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/pull"
)

// script is a Puller whose answers a test writes down. What a test does not
// write down is not to be asked.
type script struct {
	manifest    func(pull.Repository, string) (pull.Manifest, error)
	resolveBlob func(pull.Repository, digest.Digest) (ocispec.Descriptor, pull.Outcome, error)
	blob        func(pull.Repository, digest.Digest) (pull.Blob, error)
	tags        func(pull.Repository, url.Values) (pull.Tags, error)
	referrers   func(pull.Repository, digest.Digest) (pull.Referrers, error)
}

func (s script) ManifestFor(_ context.Context, repo pull.Repository, ref string, _ []string, _ ...pull.Freshness) (pull.Manifest, error) {
	return s.manifest(repo, ref)
}

func (s script) DescribeFor(_ context.Context, repo pull.Repository, ref string, _ []string, _ ...pull.Freshness) (pull.Manifest, error) {
	return s.manifest(repo, ref)
}

func (s script) ResolveManifest(_ context.Context, _ pull.Repository, _ string, failed error) (ocispec.Descriptor, error) {
	return ocispec.Descriptor{}, failed
}

func (s script) ResolveBlob(_ context.Context, repo pull.Repository, d digest.Digest) (ocispec.Descriptor, pull.Outcome, error) {
	return s.resolveBlob(repo, d)
}

func (s script) Blob(_ context.Context, repo pull.Repository, d digest.Digest, _ pull.Want) (pull.Blob, error) {
	return s.blob(repo, d)
}

func (s script) Tags(_ context.Context, repo pull.Repository, page url.Values) (pull.Tags, error) {
	return s.tags(repo, page)
}

func (s script) Referrers(_ context.Context, repo pull.Repository, subject digest.Digest, _ ...pull.Freshness) (pull.Referrers, error) {
	return s.referrers(repo, subject)
}

func upstreamsForTests() []Upstream {
	return []Upstream{
		{Name: "docker.io", Aliases: []string{"index.docker.io"}, Default: true},
		{Name: "ghcr.io", Hosts: []string{"ghcr.mirror.test"}},
		{Name: "registry.test:5000"},
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// face is a Server on loopback, with the limits it has in the program.
type face struct {
	*testing.T
	server *httptest.Server
	client *http.Client
}

func newFace(t *testing.T, p Puller, change ...func(*Options, *httptest.Server)) *face {
	t.Helper()
	opts := Options{Puller: p, Upstreams: upstreamsForTests(), Logger: quiet()}
	server := httptest.NewUnstartedServer(nil)
	for _, c := range change {
		c(&opts, server)
	}
	server.Config = HTTPServer(New(opts), quiet())
	server.Start()
	t.Cleanup(server.Close)
	client := server.Client()
	client.Transport.(*http.Transport).DisableCompression = true
	return &face{t, server, client}
}

// seen is what a client saw.
type seen struct {
	status int
	header http.Header
	length int64
	body   []byte
	cut    error // how the body broke off
}

// code is the code of the first error.
func (s seen) code() string {
	var list errorList
	if json.Unmarshal(s.body, &list) != nil || len(list.Errors) == 0 {
		return ""
	}
	return list.Errors[0].Code
}

func (f *face) do(method, target string, header ...string) seen {
	f.Helper()
	req, err := http.NewRequestWithContext(f.Context(), method, f.server.URL+target, nil)
	if err != nil {
		f.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host
	}
	resp, err := f.client.Do(req)
	if err != nil {
		return seen{cut: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return seen{resp.StatusCode, resp.Header, resp.ContentLength, body, err}
}

// wantHeader holds headers against pairs of name and value; "" wants none.
func (s seen) wantHeader(t *testing.T, pairs ...string) {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if got := s.header.Get(pairs[i]); got != pairs[i+1] {
			t.Errorf("%s: %q, want %q", pairs[i], got, pairs[i+1])
		}
	}
}

// content is a blob that is here. It is sent as package pull sends them.
type content struct {
	bytes   []byte
	path    string // of a file to send instead of the bytes, where there is one
	unknown bool   // the size is not told
	after   int64  // bytes that are sent before err; with err only
	err     error
	short   int64 // bytes that are missing at the end, without an error
	// sending, where it is not nil, is closed when the bytes are asked for,
	// which come once finish is closed.
	sending, finish chan struct{}
}

func (c *content) Digest() digest.Digest { return digest.FromBytes(c.bytes) }
func (c *content) Outcome() pull.Outcome { return pull.Hit }

func (c *content) Size() int64 {
	if c.unknown {
		return -1
	}
	return int64(len(c.bytes))
}

func (c *content) Close() error { return nil }

func (c *content) WriteRange(_ context.Context, w io.Writer, off, n int64) (int64, error) {
	if n < 0 {
		n = int64(len(c.bytes)) - off
	}
	n = max(n-c.short, 0)
	if c.sending != nil {
		close(c.sending)
		<-c.finish
	}
	if c.err != nil {
		written, err := io.Copy(w, bytes.NewReader(c.bytes[off:off+min(n, c.after)]))
		if err == nil {
			err = c.err
		}
		return written, err
	}
	if c.path == "" {
		written, err := w.Write(c.bytes[off : off+n])
		return int64(written), err
	}
	file, err := os.Open(c.path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	if _, err := file.Seek(off, io.SeekStart); err != nil {
		return 0, err
	}
	for written := int64(0); ; {
		wrote, err := io.Copy(w, &io.LimitedReader{R: file, N: min(256<<10, n-written)})
		if written += wrote; err != nil || written == n {
			return written, err
		}
	}
}

// blobs is a script that has one blob.
func blobs(b *content) script {
	return script{
		blob: func(pull.Repository, digest.Digest) (pull.Blob, error) { return b, nil },
		resolveBlob: func(_ pull.Repository, d digest.Digest) (ocispec.Descriptor, pull.Outcome, error) {
			return ocispec.Descriptor{Digest: d, Size: b.Size()}, pull.Hit, nil
		},
	}
}

// numbered returns n bytes of which no two neighbours are equal.
func numbered(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7)
	}
	return b
}

func onDisk(t *testing.T, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
