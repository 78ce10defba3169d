package proxy

import (
	"maps"
	"net/http"
	"net/url"
)

// serveTags responds with one page of a repository's tags (distribution-spec,
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
	for _, warning := range list.Warnings {
		w.Header().Add("Warning", warning)
	}
	if list.Next != nil {
		setNextLink(w.Header(), q, "tags/list", list.Next)
	}
	tags := list.Tags
	if tags == nil {
		tags = []string{} // many clients reject null
	}
	return w.writeJSON(r, "application/json", struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{q.rawName, tags})
}

// setNextLink sets the Link header for the next page, in the form that the
// client used (W11).
func setNextLink(h http.Header, q route, end string, next url.Values) {
	values := maps.Clone(next)
	if q.ns != "" {
		values.Set("ns", q.ns)
	}
	h.Set("Link", "</v2/"+q.rawName+"/"+end+"?"+values.Encode()+`>; rel="next"`)
}
