// Package proxy is the HTTP face: a request is parsed once into a typed route,
// then answered; one table turns errors into statuses.
package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/pull"
)

const (
	versionHeader = "Docker-Distribution-Api-Version"
	// maxHeader bounds a request's headers, in bytes.
	maxHeader = 32 << 10
	// readHeader and keepAlive bound how long a connection may be idle before
	// and between requests.
	readHeader = 10 * time.Second
	keepAlive  = 2 * time.Minute
)

// Puller is what the HTTP face needs of package pull.
type Puller interface {
	Manifest(ctx context.Context, repo pull.Repository, ref string) (pull.Manifest, error)
	ResolveBlob(ctx context.Context, repo pull.Repository, d digest.Digest) (ocispec.Descriptor, pull.Outcome, error)
	Blob(ctx context.Context, repo pull.Repository, d digest.Digest) (pull.Blob, error)
	Tags(ctx context.Context, repo pull.Repository, page url.Values) (pull.Tags, error)
	Referrers(ctx context.Context, repo pull.Repository, subject digest.Digest) (pull.Referrers, error)
}

// Options say what a Server works with.
type Options struct {
	Puller    Puller
	Upstreams []Upstream
	Logger    *slog.Logger
	Metrics   *Metrics // nil counts nothing
}

// Server answers clients. It is an http.Handler.
type Server struct {
	puller  Puller
	routes  routes
	log     *slog.Logger
	metrics *Metrics
}

// New returns a Server.
func New(opts Options) *Server {
	return &Server{opts.Puller, newRoutes(opts.Upstreams), opts.Logger, opts.Metrics}
}

// HTTPServer wraps a handler in a server with the limits that a face to the
// outside needs.
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
	w := newResponse(rw)
	w.Header()[versionHeader] = []string{"registry/2.0"}
	q, err := s.routes.parse(r)
	if err == nil {
		if q.ns != "" {
			w.Header().Set("OCI-Namespace", q.ns) // W12
		}
		err = s.answer(w, r, q)
	}
	broken := isBroken(err)
	if err != nil && !broken {
		writeError(w, r, err, q.kind)
	}
	s.record(w, r, q, err, time.Since(began))
	if broken {
		panic(http.ErrAbortHandler)
	}
	// A keep-alive connection waits for its next request as long as it likes.
	_ = w.control.SetWriteDeadline(time.Time{})
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
	return s.servePing(w, r)
}

// record counts the request and logs it. No query is logged but ns, and no
// header but the client's name for itself: others may hold secrets.
func (s *Server) record(w *response, r *http.Request, q route, err error, took time.Duration) {
	status := w.status
	if err != nil && r.Context().Err() != nil {
		status = statusClientGone
	}
	s.metrics.request(q, w.outcome, status, w.bytes, took)
	level := slog.LevelInfo
	if isBroken(err) || status >= http.StatusInternalServerError {
		level = slog.LevelWarn
	}
	if !s.log.Enabled(r.Context(), level) {
		return
	}
	client, _, splitErr := net.SplitHostPort(r.RemoteAddr)
	if splitErr != nil {
		client = r.RemoteAddr
	}
	attrs := []slog.Attr{
		slog.String("method", r.Method),
		slog.String("kind", string(q.kind)),
		slog.String("upstream", q.repo.Upstream),
		slog.String("repository", q.repo.Name),
		slog.String("reference", reference(q)),
		slog.Int("status", status),
		slog.Int64("bytes", w.bytes),
		slog.String("outcome", string(w.outcome)),
		slog.Duration("took", took),
		slog.String("client", client),
		slog.String("agent", cut(r.UserAgent(), 100)),
	}
	if q.kind == "" {
		attrs = append(attrs, slog.String("path", cut(r.URL.Path, 300)))
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		attrs = append(attrs, slog.String("error", err.Error()))
	}
	s.log.LogAttrs(r.Context(), level, "request", attrs...)
}

func reference(q route) string {
	if q.ref != "" {
		return q.ref
	}
	return q.digest.String()
}

func cut(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}
