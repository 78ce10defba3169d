package admin

import (
	"net/http"
	"sync/atomic"

	"github.com/entrepot/entrepot/proxy/admission"
)

// Starting is the handler of the admin address from the first moment on. A
// start may take minutes, if the records have to be restored: a probe of whether
// the process lives must not end it meanwhile.
type Starting struct {
	starting http.Handler
	full     atomic.Pointer[http.Handler]
}

// NewStarting returns a handler that answers /healthz and /metrics. For the rest
// it answers 503 until Started is called.
func NewStarting(metrics *Metrics, hosts []string) *Starting {
	mux := http.NewServeMux()
	handleHealth(mux)
	mux.Handle("GET /metrics", metrics.Handler())
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "1")
		writeText(w, http.StatusServiceUnavailable, "starting: the cache is being opened")
	})
	return &Starting{starting: protect(admission.NewHosts(hosts), mux)}
}

// Started has all requests from now on answered by the handler that [New]
// returned.
func (s *Starting) Started(full http.Handler) { s.full.Store(&full) }

func (s *Starting) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if full := s.full.Load(); full != nil {
		(*full).ServeHTTP(w, r)
		return
	}
	s.starting.ServeHTTP(w, r)
}

func handleHealth(mux *http.ServeMux) {
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok") })
}
