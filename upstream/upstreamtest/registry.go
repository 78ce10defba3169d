// Package upstreamtest is a registry for tests: it speaks HTTP on loopback, has
// the content it is given, fails as it is told, and writes down what it was
// asked.
package upstreamtest

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Registry is a scriptable registry.
type Registry struct {
	t      testing.TB
	server *httptest.Server
	auth   Auth
	api    bool

	mu        sync.Mutex
	content   map[string]map[string]item // by repository and reference
	faults    []*rule
	asked     []string
	blobBytes int64
	closed    chan struct{} // ends requests that wait
	pageSize  int
}

type item struct {
	mediaType string
	body      []byte
	blob      bool
}

// Auth says what a registry wants of its clients.
type Auth struct {
	// Scheme is "" for nothing, "basic" or "token".
	Scheme string
	// Username and Password are wanted; with "token" and no Username, anybody
	// gets a token.
	Username, Password string
	// ExpiresIn is the life of a token in seconds; 0 tells none.
	ExpiresIn int
	// Realm overrides the token server's URL in the challenge.
	Realm string
}

// Option changes a Registry.
type Option func(*Registry)

// WithReferrers gives it the Referrers API of distribution-spec 1.1.
func WithReferrers() Option { return func(r *Registry) { r.api = true } }

// WithAuth makes it want credentials.
func WithAuth(a Auth) Option { return func(r *Registry) { r.auth = a } }

// WithPages makes its lists come in pages of n.
func WithPages(n int) Option { return func(r *Registry) { r.pageSize = n } }

// New starts a registry that lives as long as the test.
func New(t testing.TB, opts ...Option) *Registry {
	t.Helper()
	r := &Registry{t: t, content: map[string]map[string]item{}, closed: make(chan struct{})}
	for _, o := range opts {
		o(r)
	}
	r.server = httptest.NewServer(http.HandlerFunc(r.serve))
	t.Cleanup(r.Stop)
	return r
}

// URL is where it listens, http://127.0.0.1:port.
func (r *Registry) URL() string { return r.server.URL }

// Stop unplugs it: connections are refused from then on.
func (r *Registry) Stop() {
	r.mu.Lock()
	select {
	case <-r.closed:
	default:
		close(r.closed)
	}
	r.mu.Unlock()
	r.server.CloseClientConnections()
	r.server.Close()
}

// Start plugs it in again, at the same address, if it was unplugged.
func (r *Registry) Start() {
	r.t.Helper()
	select {
	case <-r.closed:
	default:
		return
	}
	l, err := net.Listen("tcp", r.server.Listener.Addr().String())
	if err != nil {
		r.t.Fatalf("start the registry again: %v", err)
	}
	r.mu.Lock()
	r.closed = make(chan struct{})
	r.mu.Unlock()
	next := httptest.NewUnstartedServer(http.HandlerFunc(r.serve))
	next.Listener.Close()
	next.Listener = l
	next.Start()
	r.server = next
}

// RefusedURL is an address at which nobody listens.
func RefusedURL(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

// AddBlob makes content pullable as a blob.
func (r *Registry) AddBlob(repo string, body []byte) ocispec.Descriptor {
	return r.add(repo, "application/octet-stream", body, true)
}

// AddManifest makes content pullable as a manifest, by digest and under tags.
func (r *Registry) AddManifest(repo, mediaType string, body []byte, tags ...string) ocispec.Descriptor {
	return r.add(repo, mediaType, body, false, tags...)
}

func (r *Registry) add(repo, mediaType string, body []byte, blob bool, tags ...string) ocispec.Descriptor {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.content[repo] == nil {
		r.content[repo] = map[string]item{}
	}
	d := digest.FromBytes(body)
	for _, ref := range append(tags, d.String()) {
		r.content[repo][ref] = item{mediaType, body, blob}
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(body))}
}

// Remove takes a tag or a digest away.
func (r *Registry) Remove(repo, ref string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.content[repo], ref)
}

// Transcript is what was asked since the last call, in order: method, kind,
// repository, reference (digests by their first 12 characters), and a range.
func (r *Registry) Transcript() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	asked := r.asked
	r.asked = nil
	return asked
}

// BlobBytes is how many bytes of blobs it has sent.
func (r *Registry) BlobBytes() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.blobBytes
}

// Short names a reference as transcripts do.
func Short(ref string) string {
	if d, err := digest.Parse(ref); err == nil {
		return d.Encoded()[:12]
	}
	return ref
}

func line(method, kind, repo, ref, byteRange string) string {
	s := fmt.Sprintf("%s %s %s %s", method, kind, repo, Short(ref))
	if byteRange != "" {
		s += " " + byteRange
	}
	return s
}
