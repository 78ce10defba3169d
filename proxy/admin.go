package proxy

import (
	"net/http"
)

// Admin answers on the admin address: nothing of it is on the clients' port.
// Ready says whether requests can be answered; an error says why not. Hosts are
// names and addresses under which it answers, beside loopback and the address
// that was connected to.
func Admin(m *Metrics, k Keeper, ready func() error, hosts ...string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := ready(); err != nil {
			plain(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		plain(w, http.StatusOK, "ready")
	})
	mux.Handle("GET /metrics", m.Handler())
	adminCache(mux, k)
	// No web page that somebody looks at on this machine may purge anything, or
	// read what is kept.
	return newAdminHosts(hosts).only(http.NewCrossOriginProtection().Handler(mux))
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + "\n"))
}
