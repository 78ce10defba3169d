package mirrortest

import (
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream"
)

// MakeStale makes requests with that transcript line, or all with "*", be
// answered as by a mirror that could not ask its own upstream.
func (o *Origin) MakeStale(line string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stale[line] = true
}

// CutReferrers makes lists of referrers end in an error after n entries, as if
// a later page failed.
func (o *Origin) CutReferrers(line string, n int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.cuts[line] = cut{n, err}
}

// cut is where a list of referrers fails.
type cut struct {
	after int
	err   error
}

func (o *Origin) isStale(line string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.stale[line] || o.stale["*"]
}

// Endpoints is an upstream called "hub" of several endpoints.
func Endpoints(origins ...*Origin) pull.Upstream {
	var all []upstream.Endpoint
	for _, o := range origins {
		all = append(all, o)
	}
	return pull.Upstream{Name: "hub", Registry: upstream.Fallback(all...), Endpoints: all}
}
