package upstreamtest

import (
	"encoding/json"
	"net/http"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Converting answers as registries do that mind Accept (F30, F36): by tag, the
// first child of an index that is not accepted, and 404 for what is accepted in
// no form. asks is called with the Accept of each request for a tag.
func Converting(asks func(method, accept string)) Fault {
	return Where(func(_ *http.Request, q Request) bool { return q.Kind == "manifests" && !strings.Contains(q.Ref, ":") },
		func(r *Registry, w http.ResponseWriter, req *http.Request, q Request) {
			accept := strings.Join(req.Header.Values("Accept"), ",")
			asks(req.Method, accept)
			found, code := r.find(q)
			if code != "" || contains(accept, found.mediaType) {
				r.answer(w, req, q)
				return
			}
			var index ocispec.Index
			if json.Unmarshal(found.body, &index) == nil && len(index.Manifests) > 0 && contains(accept, index.Manifests[0].MediaType) {
				q.Ref = index.Manifests[0].Digest.String()
				r.answer(w, req, q)
				return
			}
			complain(w, http.StatusNotFound, "MANIFEST_UNKNOWN")
		})
}
