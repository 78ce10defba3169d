package upstreamtest

import (
	"fmt"
	"net/http"
	"time"
)

// Slow answers after a while, as a parent does that fetches before it answers.
func Slow(d time.Duration) Fault {
	return func(r *Registry, w http.ResponseWriter, req *http.Request, q Request) {
		if waits(req, d) {
			r.answer(w, req, q)
		}
	}
}

// Pause is silent for a while after n bytes of each body that is longer.
func Pause(n int, d time.Duration) Fault {
	return func(r *Registry, w http.ResponseWriter, req *http.Request, q Request) {
		r.answer(&pausing{ResponseWriter: w, left: n, wait: func() bool { return waits(req, d) }}, req, q)
	}
}

func waits(req *http.Request, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-req.Context().Done():
		return false
	}
}

// pausing waits once, after left bytes.
type pausing struct {
	http.ResponseWriter
	left int
	wait func() bool // nil when it has waited
}

func (p *pausing) Unwrap() http.ResponseWriter { return p.ResponseWriter }

func (p *pausing) Write(b []byte) (n int, err error) {
	if p.wait != nil && len(b) > p.left {
		if n, err = p.ResponseWriter.Write(b[:p.left]); err != nil {
			return n, err
		}
		_ = http.NewResponseController(p.ResponseWriter).Flush()
		wait := p.wait
		p.wait = nil
		if !wait() {
			return n, fmt.Errorf("the client has left")
		}
	}
	p.left -= len(b) - n
	more, err := p.ResponseWriter.Write(b[n:])
	return n + more, err
}
