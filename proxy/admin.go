package proxy

import (
	"net/http"
)

// Admin answers on the admin address: nothing of it is on the clients' port.
// Ready says whether requests can be answered; an error says why not. Told is
// what is told of the configuration, as JSON, to whoever makes that of clients:
// no secret is in it. Hosts are names and addresses under which it answers,
// beside loopback and the address that was connected to.
func Admin(m *Metrics, k Keeper, ready func() error, told any, hosts ...string) http.Handler {
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
	mux.HandleFunc("GET /config", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, told) })
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
