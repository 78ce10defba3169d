package upstream

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"
)

// Timeouts limit how long a Remote waits, as a container runtime would. Clients
// do not wait that long: whoever asks on their behalf limits that (W33). Zero
// means the default.
type Timeouts struct {
	Connect time.Duration // for a connection: 5 s
	TLS     time.Duration // for the handshake: 5 s
	// Header is for the header of a response, from when the request is sent:
	// 60 s. Some fetch what is asked for before they answer, and some search
	// half a minute for referrers.
	Header time.Duration
	Idle   time.Duration // while nothing of a body arrives: 60 s
	// Ping is after how long an HTTP/2 connection with open requests, on which
	// nothing arrives, is asked for a sign of life: 15 s. Pong is how long that
	// may take until they are sent on another one: 2 s. So a client that waits
	// for 18 s is answered, although a connection is dead.
	Ping, Pong time.Duration
}

func (w Timeouts) silence() silence { return silence{ping: w.Ping, pong: w.Pong} }

func (w Timeouts) withDefaults() Timeouts {
	w.Connect = cmp.Or(w.Connect, 5*time.Second)
	w.TLS = cmp.Or(w.TLS, 5*time.Second)
	w.Header = cmp.Or(w.Header, time.Minute)
	w.Idle = cmp.Or(w.Idle, time.Minute)
	w.Ping = cmp.Or(w.Ping, 15*time.Second)
	w.Pong = cmp.Or(w.Pong, 2*time.Second)
	return w
}

// RemoteOptions configure a Remote.
type RemoteOptions struct {
	// Name is the upstream's name in messages. With SendNamespace it is also
	// sent in the ns parameter, which shows a mirror in between which registry
	// is meant.
	Name          string
	SendNamespace bool
	// Endpoint is the http or https URL of the registry. A path after /v2/ is a
	// prefix of its repositories.
	Endpoint string
	// Credentials are looked up when they are needed; nil means anonymous
	// access.
	Credentials Keychain
	// RootCAs are trusted in addition to the system's; nil means only the
	// system's.
	RootCAs            *x509.CertPool
	InsecureSkipVerify bool
	// TrustedRealms are hosts outside of the registry's domain whose token
	// servers may be used.
	TrustedRealms []string
	// AllowPrivateRedirects lets a public registry redirect to private
	// addresses.
	AllowPrivateRedirects bool
	UserAgent             string
	Waits                 Timeouts
	// Observe is called for every request when its response's header has
	// arrived; it may be nil.
	Observe func(Observation)
	// Dial makes connections in place of the network, without its rules about
	// addresses; it may be nil.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// HasReferrers says that this endpoint is known to have the Referrers API.
	// SawReferrers is called when the API answers, at most once a day; it may
	// be nil.
	HasReferrers bool
	SawReferrers func()
	// Room bounds what is in hand of answers that are read into memory; nil
	// means no bound.
	Room *Room
}

// Observation is one request to an upstream.
type Observation struct {
	Kind      string // manifest, blob, tags, referrers, token, ping
	Method    string
	Status    int // 0 if there was no response
	Duration  time.Duration
	Limit     int // the rate limit, or 0 if unknown
	Remaining int
	Window    time.Duration
}

// Remote is a Registry over HTTP.
type Remote struct {
	opts     RemoteOptions
	endpoint endpoint
	guard    *guard
	client   *connections

	home      *host
	mu        sync.Mutex
	hosts     *lru.Cache[string, *host] // other hosts that it refers to
	tokens    *sized[token]
	exchanges singleflight.Group

	manifests, blobs  headSupport
	listings          listings
	hasReferrers      atomic.Bool
	smallPages        atomic.Bool  // it refuses n above safePageSize
	referrersReported atomic.Int64 // when SawReferrers was called last, in Unix seconds
}

// NewRemote returns a Remote. It does not connect yet.
func NewRemote(opts RemoteOptions) (*Remote, error) {
	at, err := parseEndpoint(opts.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("upstream %s: %w", opts.Name, err)
	}
	opts.Waits = opts.Waits.withDefaults()
	r := &Remote{
		opts: opts, endpoint: at,
		hosts: newLRU[*host](maxHosts), tokens: newSized(maxTokens, maxTokensBytes, token.size),
	}
	r.hasReferrers.Store(opts.HasReferrers)
	r.home = newHost(r, at.root, true)
	r.guard = newGuard(at.root.Hostname(), opts.AllowPrivateRedirects, opts.Waits)
	r.client = newConnections(r.guard, opts.Waits.silence(), &http.Transport{
		Proxy:                  r.guard.proxyFunc(),
		TLSHandshakeTimeout:    opts.Waits.TLS,
		MaxIdleConnsPerHost:    64,
		MaxResponseHeaderBytes: 64 << 10,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,                                                                            // W2: bytes are passed on unchanged
		TLSClientConfig:        &tls.Config{RootCAs: opts.RootCAs, InsecureSkipVerify: opts.InsecureSkipVerify}, // as configured
	})
	if opts.Dial != nil {
		r.client.dial = opts.Dial
	}
	return r, nil
}

// Close releases idle connections.
func (r *Remote) Close() { r.client.CloseIdleConnections() }

// host returns the state of a URL's host.
func (r *Remote) host(at *url.URL) *host {
	if at.Host == r.home.url.Host && at.Scheme == r.home.url.Scheme {
		return r.home
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	key := at.Scheme + "://" + at.Host
	h, ok := r.hosts.Get(key)
	if !ok {
		h = newHost(r, at, false)
		r.hosts.Add(key, h)
	}
	return h
}

func imageName(repo, ref string) string {
	if strings.Contains(ref, ":") {
		return repo + "@" + ref
	}
	return repo + ":" + ref
}

func mediaTypeOf(resp *http.Response) string {
	mediaType, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return mediaType
}
