// Package proxy serves clients over HTTP. A request is parsed once into a typed
// route and then answered; one table maps errors to responses.
package proxy

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/limits/panics"
	"github.com/entrepot/entrepot/proxy/admission"
	"github.com/entrepot/entrepot/proxy/pull"
)

const (
	// versionHeader and namespaceHeader are canonical keys of http.Header.
	versionHeader   = "Docker-Distribution-Api-Version"
	namespaceHeader = "Oci-Namespace"
	// readHeaderTimeout and idleTimeout limit how long a connection may be idle
	// before and between requests.
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute // of the admin address; clients have their own
	// readBodyTimeout is how long a body that is not wanted may take to end.
	readBodyTimeout = 5 * time.Second
)

// Puller is what the server needs of package pull.
type Puller interface {
	ManifestFor(ctx context.Context, repo pull.Repository, ref string, types []string, wish ...pull.Freshness) (pull.Manifest, error)
	DescribeFor(ctx context.Context, repo pull.Repository, ref string, types []string, wish ...pull.Freshness) (pull.Manifest, error)
	ResolveManifest(ctx context.Context, repo pull.Repository, ref string, failed error) (ocispec.Descriptor, error)
	ResolveBlob(ctx context.Context, repo pull.Repository, d digest.Digest) (ocispec.Descriptor, pull.Outcome, error)
	Blob(ctx context.Context, repo pull.Repository, d digest.Digest, want pull.Want) (pull.Blob, error)
	Tags(ctx context.Context, repo pull.Repository, page url.Values) (pull.Tags, error)
	Referrers(ctx context.Context, repo pull.Repository, subject digest.Digest, wish ...pull.Freshness) (pull.Referrers, error)
}

// Observer is notified of each request after it has been answered. The upstream
// and the kind are empty if the request names none. It MUST be safe for
// concurrent use.
type Observer interface {
	Request(upstream, kind, outcome string, status int, bytes int64, took time.Duration)
	// Cut counts a client that was disconnected in the middle of an answer.
	Cut(reason string)
}

// Options configure a Server.
type Options struct {
	Puller    Puller
	Upstreams []Upstream
	Logger    *slog.Logger
	Observer  Observer // nil: nobody is notified
	// Places are taken by the blobs that are being sent. nil means that only
	// they take places.
	Places *Places
	// ClientIdle is how long a client may read nothing before it is
	// disconnected. Zero means 15 minutes.
	ClientIdle time.Duration
	// Hosts are the only hosts under which clients are answered, besides
	// loopback; nil means that all are. Networks are those from which they are.
	Hosts    *admission.Hosts
	Networks admission.Networks
}

// Server answers clients. It is an http.Handler.
type Server struct {
	puller     Puller
	routes     *routes
	log        *slog.Logger
	observer   Observer
	buffers    *sync.Pool
	places     *Places
	clientIdle time.Duration
	hosts      *admission.Hosts
	networks   admission.Networks
}

// New returns a Server.
func New(opts Options) *Server {
	places := opts.Places
	if places == nil {
		places = NewPlaces(PlacesOptions{Logger: opts.Logger})
	}
	return &Server{
		puller: opts.Puller, routes: newRoutes(opts.Upstreams), log: opts.Logger, observer: opts.Observer,
		buffers: newBuffers(), places: places, clientIdle: cmp.Or(opts.ClientIdle, defaultClientIdle),
		hosts: opts.Hosts, networks: opts.Networks,
	}
}

// HTTPServer returns a server with the limits that one open to other machines
// needs. There is no limit for a response as a whole, because layers are large
// and links slow: the handler has to set its own.
func HTTPServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		// Requests have no bodies. By default each connection may take a
		// megabyte for one frame.
		HTTP2:    &http.HTTP2Config{MaxReadFrameSize: 16 << 10},
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// ServeHTTP answers one request and logs it.
func (s *Server) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	began := time.Now()
	w := newResponse(rw, s.buffers, s.clientIdle)
	w.set(versionHeader, "registry/2.0")
	w.headerSize = headerSize(r)
	q, err := s.parseSafely(r)
	if refused := s.admit(r); refused != nil {
		err = refused // whatever it is that was asked for
	}
	if large := checkHeader(w.headerSize, q.kind); large != nil {
		err = large
		w.forgetHeader(r) // before anything is waited for
	}
	w.unreadBody = w.hasBody(r, began)
	if err == nil && w.unreadBody {
		err = errBody
	}
	if err == nil {
		if q.ns != "" {
			w.set(namespaceHeader, q.ns) // W12
		}
		err = s.answerSafely(w, r, q)
	}
	broken := isAborted(err)
	if err != nil && !broken {
		writeError(w, r, err, q)
	}
	s.record(w, r, q, err, began)
	if broken {
		panic(http.ErrAbortHandler)
	}
	w.finish(r)
}

func (s *Server) parseSafely(r *http.Request) (_ route, err error) {
	defer panics.Catch("parsing a request", &err)
	return s.routes.parse(r)
}

// answerSafely makes a panic an error. If something has been sent, there is
// nothing to do but to break off.
func (s *Server) answerSafely(w *response, r *http.Request, q route) (err error) {
	defer func() {
		if errors.Is(err, panics.ErrPanic) && w.status != 0 {
			err = abort(err)
		}
	}()
	defer panics.Catch("answering a request", &err)
	return s.answer(w, r, q)
}

func (s *Server) answer(w *response, r *http.Request, q route) error {
	switch q.kind {
	case kindManifest:
		return s.serveManifest(w, r, q)
	case kindBlob:
		return s.serveBlob(w, r, q)
	case kindTags:
		return s.serveTags(w, r, q)
	case kindReferrers:
		return s.serveReferrers(w, r, q)
	}
	// W5: a mirror without accounts of its own never sends a challenge.
	return w.writeBody(r, "application/json", []byte("{}"))
}
