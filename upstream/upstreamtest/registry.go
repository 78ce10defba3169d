// Package upstreamtest is a registry for tests: it speaks HTTP on loopback, has
// the content it is given, fails as configured, and writes down what it was
// asked.
package upstreamtest

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Registry is a scriptable registry.
type Registry struct {
	t       testing.TB
	server  *httptest.Server
	network *Network // nil for that of the machine
	address string   // that it listens on
	name    string   // of its host in URLs
	auth    Auth
	http2   bool
	api     bool
	filter  bool

	mu         sync.Mutex
	content    map[string]map[string]item // by repository and reference
	faults     []*rule
	public     []string // kinds of questions
	everywhere []Fault
	asked      []string
	storage    *httptest.Server  // nil until a fault sends somebody there
	tokens     *httptest.Server  // nil while the registry is its own token server
	handed     map[string]int    // how often each URL of the storage was used
	urls       map[string]string // their queries, by signature
	blobBytes  int64
	closed     chan struct{} // ends requests that wait
	held       []func()      // give the ports back that it had when it was stopped
	pageSize   int
}

type item struct {
	mediaType string
	body      []byte
	blob      bool
	digest    digest.Digest
}

// Auth says what a registry wants of its clients.
type Auth struct {
	// Scheme is "" for nothing, "basic" or "token".
	Scheme string
	// Username and Password are wanted; with "token" and no Username, anybody
	// gets a token.
	Username, Password string
	// ExpiresIn is the life of a token in seconds; 0 sends none.
	ExpiresIn int
	// Realm overrides the token server's URL in the challenge.
	Realm string
	// Apart puts the token server on a host of its own.
	Apart bool
	// EachRepository has a realm of its own, and tokens for no other.
	EachRepository bool
	// Hidden answers 404 where a token or password is missing: only the ping
	// says what is wanted.
	Hidden bool
	// Challenge writes WWW-Authenticate for a realm and a scope, where it is
	// not written as usual.
	Challenge func(realm, scope string) []string
	// Token writes what the token server answers, where it is not the usual.
	Token func(token string) string
}

// Option changes a Registry.
type Option func(*Registry)

// WithReferrers gives it the Referrers API of distribution-spec 1.1.
func WithReferrers() Option { return func(r *Registry) { r.api = true } }

// WithFilter makes the Referrers API filter by artifactType.
func WithFilter() Option { return func(r *Registry) { r.filter = true } }

// WithHTTP2 makes it speak HTTP/2, over TLS with a certificate that nobody knows.
func WithHTTP2() Option { return func(r *Registry) { r.http2 = true } }

// WithAddress puts it on another address of loopback than 127.0.0.1.
func WithAddress(address string) Option { return func(r *Registry) { r.address = address } }

// WithName gives its host another name in URLs than its address.
func WithName(name string) Option { return func(r *Registry) { r.name = name } }

// WithAuth makes it want credentials.
func WithAuth(a Auth) Option { return func(r *Registry) { r.auth = a } }

// WithPages makes its lists come in pages of n.
func WithPages(n int) Option { return func(r *Registry) { r.pageSize = n } }

// New starts a registry that lives as long as the test.
func New(t testing.TB, opts ...Option) *Registry {
	t.Helper()
	r := &Registry{
		t: t, address: "127.0.0.1", content: map[string]map[string]item{}, handed: map[string]int{}, urls: map[string]string{}, closed: make(chan struct{}),
	}
	for _, o := range opts {
		o(r)
	}
	r.server = r.listen(r.address, r.serve)
	if r.auth.Apart {
		r.tokens = r.listen("127.0.0.1", r.serve)
	}
	t.Cleanup(func() {
		r.Stop()
		r.mu.Lock()
		defer r.mu.Unlock()
		r.release()
	})
	return r
}

// URL is where it listens, http://127.0.0.1:port.
func (r *Registry) URL() string {
	if r.name != "" {
		return strings.Replace(r.server.URL, r.address, r.name, 1)
	}
	return r.server.URL
}

// Stop unplugs it: connections are refused from then on.
func (r *Registry) Stop() {
	r.mu.Lock()
	select {
	case <-r.closed:
	default:
		close(r.closed)
	}
	all := []*httptest.Server{r.server, r.storage, r.tokens}
	r.mu.Unlock()
	for _, server := range all {
		if server != nil {
			server.CloseClientConnections()
			server.Close()
			release := hold(server.Listener.Addr())
			r.mu.Lock()
			r.held = append(r.held, release)
			r.mu.Unlock()
		}
	}
}

// release gives its ports back. It is called with the lock held.
func (r *Registry) release() {
	for _, release := range r.held {
		release()
	}
	r.held = nil
}

// Start plugs it in again, at the same address, if it was unplugged.
func (r *Registry) Start() {
	r.t.Helper()
	select {
	case <-r.closed:
	default:
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = make(chan struct{})
	r.release()
	r.server = r.again(r.server, r.serve)
	r.storage = r.again(r.storage, r.serveStorage)
	r.tokens = r.again(r.tokens, r.serve)
}

func (r *Registry) again(before *httptest.Server, serve http.HandlerFunc) *httptest.Server {
	if before == nil {
		return nil
	}
	r.t.Helper()
	return r.listen(before.Listener.Addr().String(), serve)
}

// listen serves on an address, or on any port of it.
func (r *Registry) listen(address string, serve http.HandlerFunc) *httptest.Server {
	r.t.Helper()
	if net.ParseIP(address) != nil {
		address = net.JoinHostPort(address, "0")
	}
	listen := func(address string) (net.Listener, error) { return net.Listen("tcp", address) }
	if r.network != nil {
		listen = r.network.Listen
	}
	l, err := listen(address)
	if err != nil {
		r.t.Fatalf("a registry for the test: %v", err)
	}
	server := httptest.NewUnstartedServer(serve)
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // Faults write what net/http complains about.
	server.Listener.Close()
	server.Listener = l
	if server.EnableHTTP2 = r.http2; r.http2 {
		server.StartTLS()
	} else {
		server.Start()
	}
	return server
}

// elsewhere is the URL of a server as that of another host than the registry's:
// storage and token servers of the world are. Clients with a guard against
// redirects into private networks look at addresses only.
func elsewhere(server *httptest.Server) string {
	return strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
}

// RefusedURL is an address at which nobody listens.
func RefusedURL(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	t.Cleanup(hold(l.Addr()))
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
	return r.addAs(repo, mediaType, body, digestOf(body), blob, tags...)
}

// AddBlobAs makes content pullable as a blob under a digest that is not of
// SHA-256, or not the content's own.
func (r *Registry) AddBlobAs(repo string, d digest.Digest, body []byte) ocispec.Descriptor {
	return r.addAs(repo, "application/octet-stream", body, d, true)
}

// AddManifestAs does so with a manifest.
func (r *Registry) AddManifestAs(repo string, d digest.Digest, mediaType string, body []byte, tags ...string) ocispec.Descriptor {
	return r.addAs(repo, mediaType, body, d, false, tags...)
}

func (r *Registry) addAs(repo, mediaType string, body []byte, d digest.Digest, blob bool, tags ...string) ocispec.Descriptor {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.content[repo] == nil {
		r.content[repo] = map[string]item{}
	}
	for _, ref := range append(tags, d.String()) {
		r.content[repo][ref] = item{mediaType, body, blob, d}
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

// SizeOf is how many bytes it has under a reference; 0 where it has none.
func (r *Registry) SizeOf(repo, ref string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.content[repo][ref].body)
}

// BodyOf is what it has under a reference.
func (r *Registry) BodyOf(repo, ref string) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.content[repo][ref].body
}

// Holds says whether anything that it has, under whatever name, has a digest.
func (r *Registry) Holds(repo string, d digest.Digest) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, it := range r.content[repo] {
		if it.digest == d || digest.FromBytes(it.body) == d {
			return true
		}
	}
	return false
}
