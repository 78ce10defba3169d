package admin

import (
	"net/http"

	"github.com/entrepot/entrepot/proxy/admission"
)

// restrict refuses whatever changes the cache to those who are not its
// operators. What only reads is open, and so are health and metrics.
func restrict(operators admission.Operators, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			if err := operators.Check(r); err != nil {
				writeJSON(w, http.StatusForbidden, Error{err.Error(), "not_allowed"})
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}
