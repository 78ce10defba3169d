package proxy

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/referrers"
)

// serveReferrers answers as distribution-spec, "Listing Referrers", wants it
// (W52 to W54): filtered here, in one page where that stays under 4 MiB. A
// next page begins after the digest that its "last" names.
func (s *Server) serveReferrers(w *response, r *http.Request, q route) error {
	after, types, err := cursor(q.query)
	if err != nil {
		return err
	}
	answer, err := s.puller.Referrers(r.Context(), q.repo, q.digest)
	w.outcome = answer.Outcome
	if err != nil {
		return err
	}
	list := answer.Manifests
	header := w.Header()
	if len(types) > 0 {
		list = referrers.Filter(list, meant(types, list))
		header["Oci-Filters-Applied"] = []string{"artifactType"}
	}
	if answer.Partial && len(list) == 0 {
		return errPartial // none of that type is known of, and nobody said that there is none
	}
	if after != "" {
		list = referrers.After(list, after)
	}
	body, rest, err := referrers.Page(list, referrers.MaxPage)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		next := url.Values{"last": {list[len(list)-len(rest)-1].Digest.String()}}
		if len(types) > 0 {
			next["artifactType"] = types
		}
		link(header, q, "referrers/"+q.digest.String(), next)
	}
	if answer.Stale {
		header.Add("Warning", staleWarning)
	}
	return w.writeBody(r, ocispec.MediaTypeImageIndex, body)
}

// cursor reads where a page begins, and the artifact types of which any is
// wanted.
func cursor(query url.Values) (after referrers.Digest, types []string, err error) {
	if last := query.Get("last"); last != "" {
		if after, err = parseDigest(last); err != nil {
			return "", nil, err
		}
	}
	types = slices.DeleteFunc(query["artifactType"], func(t string) bool { return t == "" })
	return after, types, nil
}

// meant are the asked types with those of the list that they may mean. A plus
// that stands in a query as it is, as curl and scripts send it, reads as a
// space there (WHATWG URL, "urlencoded parsing"), and no media type has a space
// but behind the semicolon of a parameter.
func meant(types []string, list []referrers.Descriptor) []string {
	all := slices.Clone(types)
	for _, t := range types {
		if !strings.Contains(t, " ") {
			continue
		}
		t = strings.ReplaceAll(t, " ", "+")
		for _, d := range list {
			if strings.ReplaceAll(d.ArtifactType, " ", "+") == t && !slices.Contains(all, d.ArtifactType) {
				all = append(all, d.ArtifactType)
			}
		}
	}
	return all
}
