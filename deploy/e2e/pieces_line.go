package e2e

import (
	"context"
	"net/http"
	"net/http/httputil"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

// lineRate is that of the line between the mirror and the upstream, in bytes a
// second. It is one that the mirror keeps up with: what a socket's buffers take in
// for somebody who has left is then little, and does not decide.
const lineRate = 60 << 20

// line is what everybody shares who asks an upstream from behind it.
type line struct {
	next  http.Handler
	limit *rate.Limiter
}

func newLine(next http.Handler) *line {
	return &line{next, rate.NewLimiter(lineRate, lineBurst)}
}

// lineBurst is as much as a reverse proxy writes at once.
const lineBurst = 32 << 10

func (l *line) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.next.ServeHTTP(&lineWriter{w, l.limit, r.Context()}, r)
}

type lineWriter struct {
	http.ResponseWriter
	limit *rate.Limiter
	ctx   context.Context // of the request: whoever has left uses no line
}

func (w *lineWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *lineWriter) Write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		part := p[:min(len(p), lineBurst)]
		if err = w.limit.WaitN(w.ctx, len(part)); err != nil {
			break
		}
		var written int
		written, err = w.ResponseWriter.Write(part)
		n, p = n+written, p[written:]
	}
	return n, err
}

// withoutRanges leads to the registry of a host, which answers with the whole
// whatever range is asked for (F38).
func withoutRanges(host string) http.Handler {
	proxy := reverseProxy(host).(*httputil.ReverseProxy)
	lead := proxy.Rewrite
	proxy.Rewrite = func(r *httputil.ProxyRequest) {
		lead(r)
		r.Out.Header.Del("Range")
		r.Out.Header.Del("If-Range")
	}
	proxy.ModifyResponse = func(resp *http.Response) error {
		resp.Header.Del("Accept-Ranges")
		return nil
	}
	return proxy
}

// quiet is how long a mirror asks for nothing before it is taken to have all that
// it wants, and settles how long that may take.
const (
	quietFor = time.Second
	settles  = 2 * time.Minute
)

// settled returns what was asked since the last take, once nothing more is: what
// the mirror downloads after its clients have left counts too.
func (s *transcript) settled(t *testing.T) requests {
	t.Helper()
	deadline := time.Now().Add(settles)
	for since, known := time.Now(), -1; ; time.Sleep(20 * time.Millisecond) {
		s.mu.Lock()
		open, asked := s.open, len(s.requests)
		s.mu.Unlock()
		if open > 0 || asked != known {
			since, known = time.Now(), asked
		}
		if time.Since(since) > quietFor {
			return s.take()
		}
		if time.Now().After(deadline) {
			t.Fatalf("the upstream is still asked after %s:\n%s", settles, s.take())
		}
	}
}

// bytes are those of all bodies.
func (all requests) bytes() int64 {
	var sum int64
	for _, r := range all {
		sum += r.bytes
	}
	return sum
}
