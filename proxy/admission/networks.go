package admission

import (
	"net/http"
	"net/netip"
	"slices"
)

// Networks are the networks from which requests are answered. None means all.
type Networks []netip.Prefix

// Allow says whether a request is answered: by the address that it came from,
// whatever X-Forwarded-For says.
func (n Networks) Allow(r *http.Request) bool {
	if len(n) == 0 {
		return true
	}
	from, known := peer(r)
	return known && slices.ContainsFunc(n, func(p netip.Prefix) bool { return p.Contains(from) })
}
