package upstreamtest

import (
	"context"
	"net/http"
)

type chainKey struct{}

// Combine makes one fault of several: each answers through the one after it,
// and the last through the registry.
func Combine(faults ...Fault) Fault {
	return func(r *Registry, w http.ResponseWriter, req *http.Request, q Request) {
		behind, _ := req.Context().Value(chainKey{}).([]Fault)
		chain := append(append([]Fault{}, faults...), behind...)
		r.answer(w, req.WithContext(context.WithValue(req.Context(), chainKey{}, chain)), q)
	}
}

// Throughout makes every request, whichever host it goes to, meet the faults,
// in front of what a rule has for it.
func (r *Registry) Throughout(faults ...Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.everywhere = append(r.everywhere, faults...)
}

// Answer answers a request as if the fault that calls it were not there.
func (r *Registry) Answer(w http.ResponseWriter, req *http.Request, q Request) { r.answer(w, req, q) }

// following takes the next fault of a chain.
func following(req *http.Request) (Fault, *http.Request) {
	chain, _ := req.Context().Value(chainKey{}).([]Fault)
	if len(chain) == 0 {
		return nil, req
	}
	return chain[0], req.WithContext(context.WithValue(req.Context(), chainKey{}, chain[1:]))
}
