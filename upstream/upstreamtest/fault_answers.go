package upstreamtest

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Typed sends another Content-Type; "" sends none.
func Typed(mediaType string) Fault {
	return Edited(func(a *Answer, _ Request) {
		a.Header.Set("Content-Type", mediaType)
		if mediaType == "" {
			a.Header["Content-Type"] = nil // else net/http guesses one
		}
	})
}

// WithHeader sends one more header, or several of a name.
func WithHeader(name string, values ...string) Fault {
	return Edited(func(a *Answer, _ Request) { a.Header[http.CanonicalHeaderKey(name)] = values })
}

// WithoutHeader leaves headers out.
func WithoutHeader(names ...string) Fault {
	return Edited(func(a *Answer, _ Request) {
		for _, name := range names {
			a.Header.Del(name)
		}
	})
}

// Chunked sends the body without its length.
func Chunked() Fault { return WithoutHeader("Content-Length") }

// Empty answers with a status and nothing else.
func Empty(status int) Fault {
	return func(_ *Registry, w http.ResponseWriter, _ *http.Request, _ Request) { w.WriteHeader(status) }
}

// Page answers with a status and a web page.
func Page(status int) Fault {
	return Said(status, "text/html; charset=utf-8", "<!DOCTYPE html><html><head><title>Sorry</title></head><body><h1>Something else stands here</h1></body></html>")
}

// Said answers with a status and a body.
func Said(status int, mediaType, body string) Fault {
	return func(_ *Registry, w http.ResponseWriter, _ *http.Request, _ Request) {
		w.Header().Set("Content-Type", mediaType)
		if mediaType == "" {
			w.Header()["Content-Type"] = nil
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

// Limited answers 429 with headers, as name and value in turn.
func Limited(headers ...string) Fault {
	return func(_ *Registry, w http.ResponseWriter, _ *http.Request, _ Request) {
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		complain(w, http.StatusTooManyRequests, "TOOMANYREQUESTS")
	}
}

// Encoded compresses the body, by gzip or deflate.
func Encoded(coding string) Fault {
	return Edited(func(a *Answer, _ Request) {
		var b bytes.Buffer
		switch coding {
		case "gzip":
			w := gzip.NewWriter(&b)
			_, _ = w.Write(a.Body)
			_ = w.Close()
		case "deflate":
			w := zlib.NewWriter(&b)
			_, _ = w.Write(a.Body)
			_ = w.Close()
		}
		a.Body = b.Bytes()
		a.Header.Set("Content-Encoding", coding)
		a.Header.Set("Vary", "Accept-Encoding")
	})
}

// Rewritten sends another body in place of the registry's.
func Rewritten(change func(body []byte) []byte) Fault {
	return Edited(func(a *Answer, _ Request) { a.Body = change(a.Body) })
}

// Moved redirects to the same path and query of another registry.
func Moved(to *Registry, status int) Fault {
	return func(_ *Registry, w http.ResponseWriter, req *http.Request, _ Request) {
		w.Header().Set("Location", to.URL()+req.URL.Path)
		w.WriteHeader(status)
	}
}

// ToPage redirects to a web page of the registry's own.
func ToPage(status int, location string) Fault {
	return func(r *Registry, w http.ResponseWriter, _ *http.Request, _ Request) {
		w.Header().Set("Location", r.URL()+location)
		w.WriteHeader(status)
	}
}

// RangesAsked answers only for ranges in a form that is meant, and 416 for
// others.
func RangesAsked(meant func(byteRange string) bool) Fault {
	return Where(func(_ *http.Request, q Request) bool { return q.Range != "" && !meant(q.Range) }, Empty(http.StatusRequestedRangeNotSatisfiable))
}

func contains(list, word string) bool {
	for part := range strings.SplitSeq(list, ",") {
		part, _, _ = strings.Cut(part, ";")
		if strings.EqualFold(strings.TrimSpace(part), word) {
			return true
		}
	}
	return false
}

// Trickle sends the body in pieces of n bytes, with pauses between them.
func Trickle(n, millis int) Fault {
	return func(r *Registry, w http.ResponseWriter, req *http.Request, q Request) {
		a := r.taken(req, q)
		for name, values := range a.Header {
			w.Header()[name] = values
		}
		w.WriteHeader(a.Status)
		for body := a.Body; len(body) > 0 && req.Method != http.MethodHead; {
			piece := body[:min(n, len(body))]
			body = body[len(piece):]
			if _, err := w.Write(piece); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
			<-time.After(time.Duration(millis) * time.Millisecond)
		}
	}
}
