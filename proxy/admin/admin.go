// Package admin serves the admin address: health, metrics, the configuration
// that clients need, and what operators do to a cache. It knows nothing of the
// requests that clients send to the mirror; package proxy reports those to
// Metrics through an interface of its own.
//
// It answers no web page: requests under other hosts than its own are refused
// (TestAdminAnswersUnderItsOwnHostsOnly), and so are requests of another
// origin (TestUnderALoopbackNameAnotherOriginIsStillRefused). It changes nothing
// for a machine that has no token (TestAnotherMachineChangesNothing). No label of
// a metric comes from a client (TestMetricsHaveNoNamesOfClients, in proxy).
package admin

import (
	"net/http"

	"github.com/entrepot/entrepot/proxy/admission"
)

// Options say what the admin address serves.
type Options struct {
	Metrics *Metrics
	Cache   Cache
	// Ready returns nil when clients can be served, or the reason why not.
	Ready func() error
	// Degraded returns nil, or what is wrong although clients are served. It may
	// be nil.
	Degraded func() error
	// Config is the answer to GET /config, encoded as JSON. It must not contain
	// secrets.
	Config any
	// Hosts are the names and addresses under which the server answers, in
	// addition to loopback and the address that a client connected to.
	Hosts []string
	// Operators are those who may change the cache.
	Operators admission.Operators
}

// New returns the handler of the admin address.
func New(opts Options) http.Handler {
	mux := http.NewServeMux()
	handleHealth(mux)
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := opts.Ready(); err != nil {
			writeText(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		text := "ready"
		if opts.Degraded != nil {
			if err := opts.Degraded(); err != nil {
				text += ": " + err.Error()
			}
		}
		writeText(w, http.StatusOK, text)
	})
	mux.Handle("GET /metrics", opts.Metrics.Handler())
	mux.HandleFunc("GET /config", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, opts.Config) })
	handleCache(mux, opts.Cache)
	// A web page that is open in a browser on this machine must not purge
	// anything, or read what is cached.
	return protect(admission.NewHosts(opts.Hosts), http.NewCrossOriginProtection().Handler(restrict(opts.Operators, mux)))
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + "\n"))
}
