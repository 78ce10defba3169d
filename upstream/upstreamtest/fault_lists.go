package upstreamtest

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// Linked writes the Link to a next page in another way.
func Linked(write func(r *Registry, next *url.URL) string) Fault {
	return func(r *Registry, w http.ResponseWriter, req *http.Request, q Request) {
		Edited(func(a *Answer, _ Request) {
			if next := nextOf(a); next != nil {
				a.Header.Set("Link", write(r, next))
			}
		})(r, w, req, q)
	}
}

// nextOf is the next page to which an answer links as usual, or nil.
func nextOf(a *Answer) *url.URL {
	target, _, ok := strings.Cut(strings.TrimPrefix(a.Header.Get("Link"), "<"), ">")
	if !ok {
		return nil
	}
	next, err := url.Parse(target)
	if err != nil {
		return nil
	}
	return next
}

// AtMost refuses a list with more entries than that on a page.
func AtMost(n, status int) Fault {
	return Where(func(req *http.Request, _ Request) bool {
		asked, err := strconv.Atoi(req.URL.Query().Get("n"))
		return err == nil && asked > n
	}, Said(status, "text/plain; charset=utf-8", "Method Not Allowed"))
}

// WithoutQuery answers as if the request had none.
func WithoutQuery() Fault {
	return func(r *Registry, w http.ResponseWriter, req *http.Request, q Request) {
		req = req.Clone(req.Context())
		req.URL.RawQuery = ""
		r.answer(w, req, q)
	}
}

// Asked changes the query that the registry answers.
func Asked(change func(url.Values)) Fault {
	return func(r *Registry, w http.ResponseWriter, req *http.Request, q Request) {
		req = req.Clone(req.Context())
		query := req.URL.Query()
		change(query)
		req.URL.RawQuery = query.Encode()
		r.answer(w, req, q)
	}
}

// Capped answers as if no more than n had been asked for.
func Capped(name string, n int) Fault {
	return Asked(func(q url.Values) {
		if asked, err := strconv.Atoi(q.Get(name)); err == nil && asked > n {
			q.Set(name, strconv.Itoa(n))
		}
	})
}
