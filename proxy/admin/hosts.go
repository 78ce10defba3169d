package admin

import (
	"fmt"
	"net/http"

	"github.com/entrepot/entrepot/proxy/admission"
)

// protect refuses requests under other hosts. Health and metrics are exempt:
// probes and Prometheus use whatever address they were configured with.
func protect(hosts admission.Hosts, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/healthz", "/readyz", "/metrics":
		default:
			if !hosts.Allow(r) {
				writeJSON(w, http.StatusMisdirectedRequest, Error{
					fmt.Sprintf("the admin address does not answer as %.260q: use localhost or its IP address, or add the name to admin_hosts", r.Host), "wrong_host",
				})
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}
