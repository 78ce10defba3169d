package upstreamtest

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
)

// OnPage lets the requests for one page of a list of referrers meet a fault.
// The first page is 1.
func OnPage(n int, f Fault) Fault {
	return Where(func(req *http.Request, _ Request) bool { return pageOf(req) == n }, f)
}

// FromPage does so for a page and all that follow it.
func FromPage(n int, f Fault) Fault {
	return Where(func(req *http.Request, _ Request) bool { return pageOf(req) >= n }, f)
}

// pageOf is the number of a page of referrers, which its Link names.
func pageOf(req *http.Request) int {
	n, err := strconv.Atoi(req.URL.Query().Get("page"))
	if err != nil {
		return 1
	}
	return n
}

// Later lets all requests but the first n meet a fault, whatever they ask for.
func Later(n int, f Fault) Fault {
	var met atomic.Int64
	return Where(func(*http.Request, Request) bool { return met.Add(1) > int64(n) }, f)
}

// OutOfDate answers as a mirror that could not ask its own upstream.
func OutOfDate() Fault { return WithHeader("Warning", `110 - "Response is Stale"`) }

// LinkWith writes the Link to a next page as a format with its target, such as
// `<%s>; rel="last next"`, or in several headers.
func LinkWith(formats ...string) Fault {
	return Edited(func(a *Answer, _ Request) {
		if next := nextOf(a); next != nil {
			a.Header.Del("Link")
			for _, format := range formats {
				a.Header.Add("Link", strings.ReplaceAll(format, "%s", next.String()))
			}
		}
	})
}

// LinkOn writes the Link to a next page as a URL of a host, as a registry does
// that knows itself by another name: https://registry.internal:5000.
func LinkOn(host string) Fault {
	return Linked(func(_ *Registry, next *url.URL) string { return "<" + host + next.String() + `>; rel="next"` })
}

// LinkToItself links each page to itself.
func LinkToItself() Fault {
	return linkTo(func(req *http.Request) string { return req.URL.RequestURI() })
}

// LinkInACircle links the last page to the first.
func LinkInACircle() Fault {
	return func(r *Registry, w http.ResponseWriter, req *http.Request, q Request) {
		Edited(func(a *Answer, _ Request) {
			if nextOf(a) == nil {
				a.Header.Set("Link", "<"+req.URL.Path+`>; rel="next"`)
			}
		})(r, w, req, q)
	}
}

// LinkWithoutEnd links each page to another one that is like it.
func LinkWithoutEnd() Fault {
	return linkTo(func(req *http.Request) string { return fmt.Sprintf("%s?page=%d", req.URL.Path, pageOf(req)+1) })
}

func linkTo(where func(req *http.Request) string) Fault {
	return func(r *Registry, w http.ResponseWriter, req *http.Request, q Request) {
		WithHeader("Link", "<"+where(req)+`>; rel="next"`)(r, w, req, q)
	}
}
