package upstreamtest

import (
	"bytes"
	"net/http"
	"strconv"
)

// Answer is an answer that is yet to be sent.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte // of the GET, also where HEAD is asked
}

// Edited sends an answer that is changed first. A Content-Length that the
// change sets or takes away stays so; else it is that of the body.
func Edited(change func(a *Answer, q Request)) Fault {
	return func(r *Registry, w http.ResponseWriter, req *http.Request, q Request) {
		a := r.taken(req, q)
		before, isSet := a.Header.Get("Content-Length"), len(a.Header["Content-Length"]) > 0
		change(a, q)
		if isSet && a.Header.Get("Content-Length") == before {
			a.Header.Set("Content-Length", strconv.Itoa(len(a.Body)))
		}
		a.send(w, req)
	}
}

// taken is the answer that a request would get.
func (r *Registry) taken(req *http.Request, q Request) *Answer {
	asked := req
	if req.Method == http.MethodHead {
		asked = req.Clone(req.Context())
		asked.Method = http.MethodGet
	}
	rec := &recorder{a: Answer{Header: http.Header{}}}
	r.answer(rec, asked, q)
	rec.WriteHeader(http.StatusOK)
	rec.a.Body = rec.body.Bytes()
	if q.Method != http.MethodHead || rec.body.Len() > 0 {
		rec.a.Header.Set("Content-Length", strconv.Itoa(rec.body.Len()))
	}
	return &rec.a
}

func (a *Answer) send(w http.ResponseWriter, req *http.Request) {
	for name, values := range a.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(a.Status)
	if req.Method != http.MethodHead {
		_, _ = w.Write(a.Body)
		_ = http.NewResponseController(w).Flush()
	}
}

// recorder is a ResponseWriter that keeps what it is given.
type recorder struct {
	a    Answer
	body bytes.Buffer
}

func (c *recorder) Header() http.Header { return c.a.Header }
func (c *recorder) Flush()              {}

func (c *recorder) WriteHeader(status int) {
	if c.a.Status == 0 {
		c.a.Status = status
	}
}

func (c *recorder) Write(b []byte) (int, error) {
	c.WriteHeader(http.StatusOK)
	return c.body.Write(b)
}
