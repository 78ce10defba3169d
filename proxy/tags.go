package proxy

import (
	"maps"
	"net/http"
	"net/url"
)

// serveTags answers with one page of a repository's tags (distribution-spec,
// "Listing Tags").
func (s *Server) serveTags(w *response, r *http.Request, q route) error {
	list, err := s.puller.Tags(r.Context(), q.repo, q.query)
	w.outcome = list.Outcome
	if err != nil {
		return err
	}
	if list.Stale {
		w.Header().Add("Warning", staleWarning)
	}
	if list.Next != nil {
		link(w.Header(), q, "tags/list", list.Next)
	}
	tags := list.Tags
	if tags == nil {
		tags = []string{} // null is no list to many clients
	}
	return w.writeJSON(r, "application/json", struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{q.asked, tags})
}

// link names the next page at this origin, in the client's own form (W11).
func link(h http.Header, q route, end string, next url.Values) {
	values := maps.Clone(next)
	if q.ns != "" {
		values.Set("ns", q.ns)
	}
	h.Set("Link", "</v2/"+q.asked+"/"+end+"?"+values.Encode()+`>; rel="next"`)
}
