package upstreamtest

import (
	"net/http"
	"sync"
	"time"
)

// Where lets only the requests meet a fault that it is meant for.
func Where(meant func(req *http.Request, q Request) bool, f Fault) Fault {
	return func(r *Registry, w http.ResponseWriter, req *http.Request, q Request) {
		if meant(req, q) {
			f(r, w, req, q)
			return
		}
		r.answer(w, req, q)
	}
}

// FirstTime lets the first question about each thing meet a fault, by kind,
// repository and reference; HEAD and GET count together.
func FirstTime(f Fault) Fault { return Times(1, f) }

// Times lets the first n questions about each thing meet a fault.
func Times(n int, f Fault) Fault {
	var mu sync.Mutex
	met := map[Request]int{}
	return Where(func(_ *http.Request, q Request) bool {
		mu.Lock()
		defer mu.Unlock()
		q.Method, q.Range = "", ""
		met[q]++
		return met[q] <= n
	}, f)
}

// UnlessAccepted lets requests meet a fault whose header does not name a value.
func UnlessAccepted(header, value string, f Fault) Fault {
	return Where(func(req *http.Request, _ Request) bool {
		for _, given := range req.Header.Values(header) {
			if contains(given, value) {
				return false
			}
		}
		return true
	}, f)
}

// Until lets requests meet a fault for a time that begins with the first.
func Until(d time.Duration, f Fault) Fault {
	var once sync.Once
	var end time.Time
	return Where(func(*http.Request, Request) bool {
		once.Do(func() { end = time.Now().Add(d) })
		return time.Now().Before(end)
	}, f)
}
