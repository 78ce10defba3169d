// Package proxy is the HTTP face: a request is parsed once into a typed route,
// then answered; one table turns errors into answers.
package proxy

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/pull"
)

const (
	// versionHeader and namespaceHeader are in the form of http.Header's keys.
	versionHeader   = "Docker-Distribution-Api-Version"
	namespaceHeader = "Oci-Namespace"
	// maxHeader bounds a request's headers, in bytes.
	maxHeader = 32 << 10
	// readHeader and keepAlive bound how long a connection may be idle before
	// and between requests.
	readHeader = 10 * time.Second
	keepAlive  = 2 * time.Minute
	// readBody is how long a body that nobody wants may take to end.
	readBody = 5 * time.Second
)

// Puller is what the HTTP face needs of package pull.
type Puller interface {
	Manifest(ctx context.Context, repo pull.Repository, ref string) (pull.Manifest, error)
	ResolveManifest(ctx context.Context, repo pull.Repository, ref string, failed error) (ocispec.Descriptor, error)
	ResolveBlob(ctx context.Context, repo pull.Repository, d digest.Digest) (ocispec.Descriptor, pull.Outcome, error)
	Blob(ctx context.Context, repo pull.Repository, d digest.Digest) (pull.Blob, error)
	Tags(ctx context.Context, repo pull.Repository, page url.Values) (pull.Tags, error)
	Referrers(ctx context.Context, repo pull.Repository, subject digest.Digest) (pull.Referrers, error)
}

// Observer is notified of each request after it has been answered. The
// upstream and the kind are empty if the request names none. It MUST be safe
// for concurrent use.
type Observer interface {
	Request(upstream, kind, outcome string, status int, bytes int64, took time.Duration)
}

// Options say what a Server works with.
type Options struct {
	Puller    Puller
	Upstreams []Upstream
	Logger    *slog.Logger
	Observer  Observer // nil: nobody is notified
	// MaxBlobs is how many blobs may be sent at once; each is an open file.
	// Zero means 4096.
	MaxBlobs int
}

// Server answers clients. It is an http.Handler.
type Server struct {
	puller   Puller
	routes   *routes
	log      *slog.Logger
	observer Observer
	buffers  *sync.Pool
	sending  chan struct{} // a place for each blob that is being sent
}

// New returns a Server.
func New(opts Options) *Server {
	return &Server{
		puller: opts.Puller, routes: newRoutes(opts.Upstreams), log: opts.Logger, observer: opts.Observer,
		buffers: newBuffers(), sending: make(chan struct{}, cmp.Or(opts.MaxBlobs, 4096)),
	}
}

// HTTPServer wraps a handler in a server with the limits that a face to the
// outside needs. How long an answer may take is the handler's own business:
// layers are large, and links slow.
func HTTPServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: readHeader,
		IdleTimeout:       keepAlive,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// ServeHTTP answers one request and writes one line about it.
func (s *Server) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	began := time.Now()
	w := newResponse(rw, s.buffers)
	w.Header()[versionHeader] = []string{"registry/2.0"}
	w.unread = w.hasBody(r, began)
	q, err := s.routes.parse(r)
	if err == nil && w.unread {
		err = errBody
	}
	if err == nil {
		if q.ns != "" {
			w.Header()[namespaceHeader] = []string{q.ns} // W12
		}
		err = s.answer(w, r, q)
	}
	broken := isBroken(err)
	if err != nil && !broken {
		writeError(w, r, err, q)
	}
	s.record(w, r, q, err, time.Since(began))
	if broken {
		panic(http.ErrAbortHandler)
	}
	w.finish(r)
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
	// W5: a mirror without accounts of its own never challenges.
	return w.writeBody(r, "application/json", []byte("{}"))
}
