package e2e

import (
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"
)

// request is one that reached an upstream, as it was answered.
type request struct {
	method, path string // path with the query, without ns
	rng, agent   string
	status       int
	bytes        int64 // of the body
}

func (r request) String() string {
	s := fmt.Sprintf("%s %s %d, %d bytes", r.method, r.path, r.status, r.bytes)
	if r.rng != "" {
		s += ", Range " + r.rng
	}
	return s + ", from " + r.agent
}

// transcript stands before a registry and writes down what it is asked.
type transcript struct {
	next http.Handler

	mu       sync.Mutex
	refused  func(*http.Request) bool
	requests []request
	open     int // that are being answered
}

// reverseProxy leads to the registry of a host.
func reverseProxy(host string) http.Handler {
	registry := &url.URL{Scheme: "http", Host: host}
	return &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(registry); r.Out.Host = r.In.Host },
		FlushInterval: -1,
	}
}

// refuse answers 503 to the requests that which says, nil for none, in the
// registry's place.
func (s *transcript) refuse(which func(*http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = which
}

func (s *transcript) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	refused := s.refused
	s.open++
	s.mu.Unlock()
	counted := &countedWriter{ResponseWriter: w, status: http.StatusOK}
	// Deferred, because the proxy panics when a client leaves.
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.open--
		s.requests = append(s.requests, request{
			method: r.Method, path: withoutNamespace(r.URL), rng: r.Header.Get("Range"), agent: r.UserAgent(),
			status: counted.status, bytes: counted.bytes,
		})
	}()
	if refused != nil && refused(r) {
		http.Error(counted, "out of order", http.StatusServiceUnavailable)
		return
	}
	s.next.ServeHTTP(counted, r)
}

// withoutNamespace leaves out ns, which an endpoint is told that is not known by
// the name of the upstream, in case it is a mirror itself.
func withoutNamespace(asked *url.URL) string {
	query := asked.Query()
	query.Del("ns")
	return (&url.URL{Path: asked.Path, RawQuery: query.Encode()}).String()
}

// take returns what was asked since the last take. A client can have its answer
// a moment before it is written down: take waits for what is being answered, but
// not for ever.
func (s *transcript) take() requests {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		if s.open == 0 || time.Now().After(deadline) {
			taken := s.requests
			s.requests = nil
			s.mu.Unlock()
			return taken
		}
		s.mu.Unlock()
	}
}

type countedWriter struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (w *countedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *countedWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *countedWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

type requests []request

func (all requests) where(keep func(request) bool) requests {
	var kept requests
	for _, r := range all {
		if keep(r) {
			kept = append(kept, r)
		}
	}
	return kept
}

func (all requests) String() string {
	var lines []string
	for _, r := range all {
		lines = append(lines, "  "+r.String())
	}
	return strings.Join(lines, "\n")
}

// summary is for the page of results: "2 HEAD, 9 GET (12.3 MB)".
func (all requests) summary() string {
	if len(all) == 0 {
		return "none"
	}
	var bytes int64
	methods := map[string]int{}
	for _, r := range all {
		methods[r.method]++
		bytes += r.bytes
	}
	var parts []string
	for _, method := range []string{http.MethodHead, http.MethodGet} {
		if methods[method] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", methods[method], method))
		}
	}
	text := strings.Join(parts, ", ")
	if bytes > 0 {
		text += fmt.Sprintf(" (%.1f MB)", float64(bytes)/1e6)
	}
	return text
}
