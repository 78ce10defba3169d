package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream"
)

// statusClientLeft is logged when the client disconnected before the end. It is
// never sent.
const statusClientLeft = 499

// maxLoggedAgent is how many bytes of a user agent are logged.
const maxLoggedAgent = 100

// The outcomes of requests that do not have one of package pull's.
const (
	outcomeBroken pull.Outcome = "broken" // the connection was broken during the body
	outcomeFailed pull.Outcome = "failed" // answered with an error
	outcomeNone   pull.Outcome = "none"   // neither the cache nor an upstream was asked
)

// record reports the request to the observer and logs it. Of the query only ns
// is logged, and of the headers only the user agent, because the others may
// hold secrets.
func (s *Server) record(w *response, r *http.Request, q route, err error, began time.Time) {
	took := time.Since(began)
	status, outcome, level := w.status, w.outcome, slog.LevelInfo
	var reason error
	if err != nil {
		reason = w.cutReason(r, err)
	}
	switch {
	case reason != nil:
		outcome, level = outcomeBroken, slog.LevelWarn
		err = fmt.Errorf("%w: %w", reason, err)
		if s.observer != nil {
			s.observer.Cut(cutLabel(reason))
		}
	case err != nil && clientGone(r, err):
		status = statusClientLeft
	case isAborted(err):
		outcome, level = outcomeBroken, slog.LevelWarn
	case status >= http.StatusInternalServerError:
		outcome, level = outcomeFailed, slog.LevelWarn
	case err != nil && outcome == "":
		outcome = outcomeFailed
	}
	if outcome == "" {
		outcome = outcomeNone
	}
	if s.observer != nil {
		s.observer.Request(q.repo.Upstream, string(q.kind), string(outcome), status, w.bytes, took)
	}
	if !s.log.Enabled(r.Context(), level) {
		return
	}
	s.logRequest(w, r, q, err, ending{status, outcome, level, began.Add(took), took})
}

// ending is how a request has ended.
type ending struct {
	status  int
	outcome pull.Outcome
	level   slog.Level
	at      time.Time
	took    time.Duration
}

// A lineLogger is a handler of the log that takes a line as it is. slog.Record
// would copy the attributes twice.
type lineLogger interface {
	HandleLine(ctx context.Context, at time.Time, level slog.Level, message string, attrs []slog.Attr) error
}

// logged are attributes of lines.
var logged = sync.Pool{New: func() any { return new([14]slog.Attr) }}

func (s *Server) logRequest(w *response, r *http.Request, q route, err error, a ending) {
	client, _, splitErr := net.SplitHostPort(r.RemoteAddr)
	if splitErr != nil {
		client = r.RemoteAddr
	}
	all := logged.Get().(*[14]slog.Attr)
	defer func() {
		clear(all[:]) // they hold parts of the request
		logged.Put(all)
	}()
	attrs := append(all[:0],
		slog.String("method", truncate(r.Method, 20)),
		slog.String("kind", string(q.kind)),
		slog.String("upstream", q.repo.Upstream),
		slog.String("repository", q.repo.Name),
		slog.String("reference", q.reference()),
		slog.Int("status", a.status),
		slog.Int64("bytes", w.bytes),
		slog.String("outcome", string(a.outcome)),
		slog.Duration("took", a.took),
		slog.String("client", client),
		slog.String("agent", truncate(r.UserAgent(), maxLoggedAgent)),
	)
	if q.ns != "" {
		attrs = append(attrs, slog.String("ns", q.ns))
	}
	if q.repo.Name == "" && q.kind != kindPing {
		attrs = append(attrs, slog.String("path", truncate(r.URL.Path, 300)))
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", err.Error()))
	}
	handler := s.log.Handler()
	if lines, ok := handler.(lineLogger); ok {
		_ = lines.HandleLine(r.Context(), a.at, a.level, "request", attrs)
		return
	}
	// LogAttrs would look up from where it is called.
	line := slog.NewRecord(a.at, a.level, "request", 0)
	line.AddAttrs(attrs...)
	_ = handler.Handle(r.Context(), line)
}

// clientGone reports whether the client ended the request. If it disconnected,
// the request's context has ended, or, shortly before that, the connection
// returns an error.
func clientGone(r *http.Request, err error) bool {
	if r.Context().Err() != nil {
		return true
	}
	var connection *net.OpError
	return isAborted(err) && errors.As(err, &connection) && !errors.Is(err, upstream.ErrUnavailable)
}

func (q *route) reference() string {
	if q.ref != "" {
		return q.ref
	}
	return q.digest.String()
}

func truncate(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}
