package e2e

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// weatherRegistry is the registry of a cell: distribution behind a transcript, by
// TLS, and a parent that takes its time.
type weatherRegistry struct {
	*transcript
	host string
}

// serveWeather serves it, by HTTP/1.1 alone or by HTTP/2 too.
func (s *suite) serveWeather(t *testing.T, registry http.Handler, certificate tls.Certificate, http1 bool) *weatherRegistry {
	t.Helper()
	r := &weatherRegistry{&transcript{next: registry}, "127.0.0.1:" + strconv.Itoa(s.freePort(t))}
	l, err := net.Listen("tcp", r.host)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		Handler: r, ErrorLog: quiet(), Protocols: new(http.Protocols),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}},
	}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetHTTP2(!http1)
	go func() { _ = server.ServeTLS(l, "", "") }() // The mirror sees where it fails.
	t.Cleanup(func() { server.Close() })
	return r
}

// warmUp is a part of tags that are only asked for to open connections. They don't
// exist. Each answer is held back, so that the others need their own connections.
const warmUp = "/manifests/warm-up-"

// quietProxy leads to a registry, and says nothing of those who leave.
func quietProxy(host string) http.Handler {
	proxy := reverseProxy(host).(*httputil.ReverseProxy)
	proxy.ErrorLog = quiet()
	return proxy
}

// lingering holds back the answers about those tags.
func lingering(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, warmUp) {
			time.Sleep(500 * time.Millisecond)
		}
		next.ServeHTTP(w, r)
	})
}

// thinking is a parent that fetches what it is asked for before it answers. If the
// one who asked leaves, it drops what it has, and begins anew at the next request.
func thinking(next http.Handler, takes time.Duration) http.Handler {
	var had sync.Map // by path
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ofImage := strings.Contains(r.URL.Path, "/manifests/") || strings.Contains(r.URL.Path, "/blobs/")
		if ofImage && !strings.Contains(r.URL.Path, "/manifests/sha256-") { // no pull waits for referrers
			if _, there := had.Load(r.URL.Path); !there && !stays(r, takes) {
				return
			}
			had.Store(r.URL.Path, true)
		}
		next.ServeHTTP(w, r)
	})
}

// pausing is a parent that pauses in the middle of a big blob, for each request
// anew.
func pausing(next http.Handler, half int64, pause time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		left := half - request{rng: r.Header.Get("Range")}.first()
		next.ServeHTTP(&pausedWriter{ResponseWriter: w, left: left, wait: func() { stays(r, pause) }}, r)
	})
}

// stays says whether the one who asked still waits after a while.
func stays(r *http.Request, while time.Duration) bool {
	select {
	case <-r.Context().Done():
		return false
	case <-time.After(while):
		return true
	}
}

type pausedWriter struct {
	http.ResponseWriter
	left int64 // until the pause
	wait func()
}

func (w *pausedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *pausedWriter) Write(p []byte) (n int, err error) {
	if first := w.left; first < int64(len(p)) {
		if first > 0 {
			if n, err = w.ResponseWriter.Write(p[:first]); err != nil {
				return n, err
			}
		}
		// The headers go out at least.
		if err := http.NewResponseController(w.ResponseWriter).Flush(); err != nil {
			return n, err
		}
		w.wait()
		p = p[max(first, 0):]
		w.left = 1 << 62
	}
	rest, err := w.ResponseWriter.Write(p)
	w.left -= int64(rest)
	return n + rest, err
}
