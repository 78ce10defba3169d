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

// Waits bound how long a Remote waits, so that a "no" is fast (W33). Zero
// means the default.
type Waits struct {
	Connect time.Duration // for a connection: 5 s
	TLS     time.Duration // for its handshake: 5 s
	Header  time.Duration // for the first header of an answer: 10 s
	Silence time.Duration // in the middle of a body: 10 s
	// Referrers is Header for the Referrers API: 60 s. Some registries search
	// for half a minute, and a list that comes late is still a list.
	Referrers time.Duration
}

func (w Waits) withDefaults() Waits {
	w.Connect = cmp.Or(w.Connect, 5*time.Second)
	w.TLS = cmp.Or(w.TLS, 5*time.Second)
	w.Header = cmp.Or(w.Header, 10*time.Second)
	w.Silence = cmp.Or(w.Silence, 10*time.Second)
	w.Referrers = cmp.Or(w.Referrers, 60*time.Second)
	return w
}

// RemoteOptions say how to reach a registry.
type RemoteOptions struct {
	// Name is what the upstream is called, for messages and, where
	// SendNamespace is set, for the ns parameter that tells a mirror in
	// between which registry is meant.
	Name          string
	SendNamespace bool
	// Endpoint is the URL of the registry, http or https. What follows /v2/ in
	// it is where its repositories lie.
	Endpoint string
	// Credentials returns user name and password at the time of use; nil
	// means anonymous.
	Credentials func(ctx context.Context) (Credentials, error)
	// RootCAs are believed beside the system's; nil means the system's.
	RootCAs            *x509.CertPool
	InsecureSkipVerify bool
	// TrustedRealms are hosts outside of the registry's domain whose token
	// servers may be used.
	TrustedRealms []string
	// AllowPrivateRedirects lets a public registry redirect to private
	// addresses.
	AllowPrivateRedirects bool
	UserAgent             string
	Waits                 Waits
	// Observe is told of every request when its headers are in; nil is fine.
	Observe func(Observation)
	// HasReferrers says that this endpoint was seen to have the Referrers API
	// before; SawReferrers is called when it is seen, once a day at most. nil is
	// fine.
	HasReferrers bool
	SawReferrers func()
}

// Credentials are what a registry or its token server is shown.
type Credentials struct {
	Username, Password string
	// IdentityToken is an OAuth2 refresh token, instead of the two.
	IdentityToken string
	// Absent says where none were found, in words that follow "and": it is told
	// where the registry refuses. Empty where there are some.
	Absent string
}

// Observation is one request to an upstream.
type Observation struct {
	Kind      string // manifest, blob, tags, referrers, token, ping
	Method    string
	Status    int // 0 where no answer came
	Duration  time.Duration
	Limit     int // of the rate, 0 where it is not told
	Remaining int
	Window    time.Duration
}

// Remote is a Registry over HTTP.
type Remote struct {
	opts     RemoteOptions
	endpoint endpoint
	guard    *guard
	client   *http.Transport
	// patient is client with the wait of Referrers. That wait is one for all of
	// a transport, so it has connections of its own.
	patient *http.Transport

	home   *host
	mu     sync.Mutex
	hosts  *lru.Cache[string, *host] // that it leads to
	tokens *lru.Cache[string, token]
	dances singleflight.Group

	manifests, blobs heads
	hasReferrers     atomic.Bool
	modest           atomic.Bool  // it takes no n above modestTags
	toldReferrers    atomic.Int64 // when it was told last that there is the API, in Unix seconds
}

// NewRemote returns a Remote. It dials nobody yet.
func NewRemote(opts RemoteOptions) (*Remote, error) {
	at, err := parseEndpoint(opts.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("upstream %s: %w", opts.Name, err)
	}
	opts.Waits = opts.Waits.withDefaults()
	r := &Remote{
		opts: opts, endpoint: at,
		hosts: newLRU[*host](maxHosts), tokens: newLRU[token](maxTokens),
	}
	r.hasReferrers.Store(opts.HasReferrers)
	r.home = newHost(r, at.root, true)
	r.guard = &guard{dialer: net.Dialer{Timeout: opts.Waits.Connect}, home: at.root.Hostname(), allow: opts.AllowPrivateRedirects}
	r.client = &http.Transport{
		Proxy:                  r.guard.throughProxy(),
		DialContext:            r.guard.dial,
		TLSHandshakeTimeout:    opts.Waits.TLS,
		ResponseHeaderTimeout:  opts.Waits.Header,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,                                                                            // W2: bytes are passed on as they are
		TLSClientConfig:        &tls.Config{RootCAs: opts.RootCAs, InsecureSkipVerify: opts.InsecureSkipVerify}, //nolint:gosec // the configuration's wish
	}
	r.patient = r.client.Clone()
	r.patient.ResponseHeaderTimeout = opts.Waits.Referrers
	// A connection that nobody has heard of for long may be dead, which here
	// would cost a minute.
	r.patient.IdleConnTimeout = 30 * time.Second
	return r, nil
}

// Close releases idle connections.
func (r *Remote) Close() {
	r.client.CloseIdleConnections()
	r.patient.CloseIdleConnections()
}

// host is the state of the host of a URL.
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

func named(repo, ref string) string {
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
