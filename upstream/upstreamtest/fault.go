package upstreamtest

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Fault answers a request in place of the registry.
type Fault func(r *Registry, w http.ResponseWriter, req *http.Request, q Request)

type rule struct {
	match string
	times int // left; negative means always
	fault Fault
}

// Always makes every request whose transcript line begins with match, or
// contains it between spaces, meet the fault. "" matches all.
func (r *Registry) Always(match string, f Fault) { r.rule(match, -1, f) }

// Once does so for the next request only.
func (r *Registry) Once(match string, f Fault) { r.rule(match, 1, f) }

func (r *Registry) rule(match string, times int, f Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, &rule{match, times, f})
}

// Mend forgets all faults.
func (r *Registry) Mend() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = nil
}

func (r *Registry) fault(q Request) Fault {
	r.mu.Lock()
	defer r.mu.Unlock()
	asked := line(q.Method, q.Kind, q.Repo, q.Ref, q.Range)
	for _, rule := range r.faults {
		if rule.times != 0 && (strings.HasPrefix(asked, rule.match) || strings.Contains(asked+" ", " "+rule.match+" ")) {
			rule.times--
			return rule.fault
		}
	}
	return nil
}

// Status answers with a status and an error of the specification.
func Status(status int, code string) Fault {
	return func(_ *Registry, w http.ResponseWriter, _ *http.Request, _ Request) { complain(w, status, code) }
}

// RateLimited answers 429 with Retry-After in seconds.
func RateLimited(seconds int) Fault {
	return func(_ *Registry, w http.ResponseWriter, _ *http.Request, _ Request) {
		w.Header().Set("Retry-After", strconv.Itoa(seconds))
		complain(w, http.StatusTooManyRequests, "TOOMANYREQUESTS")
	}
}

// HTML answers 200 with a web page.
func HTML() Fault {
	return func(_ *Registry, w http.ResponseWriter, _ *http.Request, _ Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte("<html>sign in</html>"))
	}
}

// Body answers 200 with a body that is not the registry's.
func Body(mediaType string, body []byte) Fault {
	return func(_ *Registry, w http.ResponseWriter, _ *http.Request, _ Request) {
		w.Header().Set("Content-Type", mediaType)
		_, _ = w.Write(body)
	}
}

// Redirect answers 307 to a URL.
func Redirect(to string) Fault {
	return func(_ *Registry, w http.ResponseWriter, _ *http.Request, _ Request) {
		w.Header().Set("Location", to)
		w.WriteHeader(http.StatusTemporaryRedirect)
	}
}

// RedirectLoop answers 307 to the request itself.
func RedirectLoop() Fault {
	return func(_ *Registry, w http.ResponseWriter, req *http.Request, _ Request) {
		w.Header().Set("Location", req.URL.String())
		w.WriteHeader(http.StatusTemporaryRedirect)
	}
}

// Hangup breaks the connection before any header.
func Hangup() Fault {
	return func(*Registry, http.ResponseWriter, *http.Request, Request) { panic(http.ErrAbortHandler) }
}

// Silent never answers, until the registry stops or the client leaves.
func Silent() Fault {
	return func(r *Registry, _ http.ResponseWriter, req *http.Request, _ Request) { r.wait(req) }
}

func (r *Registry) wait(req *http.Request) {
	r.mu.Lock()
	closed := r.closed
	r.mu.Unlock()
	select {
	case <-closed:
	case <-req.Context().Done():
	}
}

// Gate lets the request through once open is closed.
func Gate(open <-chan struct{}) Fault {
	return func(r *Registry, w http.ResponseWriter, req *http.Request, q Request) {
		select {
		case <-open:
			r.answer(w, req, q)
		case <-req.Context().Done():
		}
	}
}

// CutAfter breaks the connection after n bytes of the body.
func CutAfter(n int) Fault {
	return func(r *Registry, w http.ResponseWriter, req *http.Request, q Request) {
		r.answer(&shortWriter{ResponseWriter: w, left: n, then: func() { panic(http.ErrAbortHandler) }}, req, q)
	}
}

// StallAfter goes silent after n bytes of the body.
func StallAfter(n int) Fault {
	return func(r *Registry, w http.ResponseWriter, req *http.Request, q Request) {
		r.answer(&shortWriter{ResponseWriter: w, left: n, then: func() { r.wait(req) }}, req, q)
	}
}

type shortWriter struct {
	http.ResponseWriter
	left int
	then func()
}

func (s *shortWriter) Write(b []byte) (int, error) {
	n, err := s.ResponseWriter.Write(b[:min(len(b), s.left)])
	if s.left -= n; err == nil && s.left == 0 {
		_ = http.NewResponseController(s.ResponseWriter).Flush()
		s.then()
		return n, fmt.Errorf("cut")
	}
	return n, err
}

// NoRange answers with the whole body, whatever range is asked.
func NoRange(then Fault) Fault {
	return func(r *Registry, w http.ResponseWriter, req *http.Request, q Request) {
		req = req.Clone(req.Context())
		req.Header.Del("Range")
		if then != nil {
			then(r, w, req, q)
			return
		}
		r.answer(w, req, q)
	}
}

// Corrupt changes one byte of the body. The second half comes a moment after
// the first, so that clients have begun to read.
func Corrupt(at int) Fault {
	return func(r *Registry, w http.ResponseWriter, _ *http.Request, q Request) {
		r.respond(slowWriter{w}, q, func(body []byte) []byte {
			body = bytes.Clone(body)
			body[at%len(body)] ^= 0x20
			return body
		}, nil)
	}
}

// slowWriter takes a moment after each write.
type slowWriter struct{ http.ResponseWriter }

func (s slowWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (s slowWriter) Write(b []byte) (int, error) {
	n, err := s.ResponseWriter.Write(b)
	if err == nil {
		err = http.NewResponseController(s.ResponseWriter).Flush()
	}
	<-time.After(100 * time.Millisecond)
	return n, err
}

// Longer appends bytes to the body, and says so in Content-Length.
func Longer(n int) Fault {
	return func(r *Registry, w http.ResponseWriter, _ *http.Request, q Request) {
		r.respond(w, q, func(body []byte) []byte { return append(bytes.Clone(body), make([]byte, n)...) }, nil)
	}
}

// Shorter leaves the last n bytes of the body out, and says so in Content-Length.
func Shorter(n int) Fault {
	return func(r *Registry, w http.ResponseWriter, _ *http.Request, q Request) {
		r.respond(w, q, func(body []byte) []byte { return body[:len(body)-n] }, nil)
	}
}

// WrongDigest sends another Docker-Content-Digest.
func WrongDigest() Fault {
	return func(r *Registry, w http.ResponseWriter, _ *http.Request, q Request) {
		r.respond(w, q, nil, func(h http.Header) {
			h.Set("Docker-Content-Digest", "sha256:"+strings.Repeat("0", 64))
		})
	}
}

// NoLength sends the body in chunks.
func NoLength() Fault {
	return func(r *Registry, w http.ResponseWriter, _ *http.Request, q Request) {
		r.respond(w, q, nil, func(h http.Header) { h.Del("Content-Length") })
	}
}

// LateMillis answers after that many milliseconds.
func LateMillis(ms int) Fault { return Slow(time.Duration(ms) * time.Millisecond) }

func (r *Registry) respond(w http.ResponseWriter, q Request, change func([]byte) []byte, headers func(http.Header)) {
	found, code := r.find(q)
	if code != "" {
		complain(w, http.StatusNotFound, code)
		return
	}
	body := found.body
	if change != nil {
		body = change(body)
	}
	w.Header().Set("Content-Type", found.mediaType)
	w.Header().Set("Docker-Content-Digest", found.digest.String())
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if headers != nil {
		headers(w.Header())
	}
	w.WriteHeader(http.StatusOK)
	if q.Method == http.MethodHead {
		return
	}
	_, _ = w.Write(body[:len(body)/2])
	_ = http.NewResponseController(w).Flush()
	_, _ = w.Write(body[len(body)/2:])
}
