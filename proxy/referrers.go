package proxy

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/referrers"
)

// serveReferrers responds as in distribution-spec, "Listing Referrers" (W52 to
// W54): filtered by the mirror, in one page if it is smaller than 4 MiB. "last"
// names the digest after which the next page begins.
func (s *Server) serveReferrers(w *response, r *http.Request, q route) error {
	after, types, err := parseCursor(q.query)
	if err != nil {
		return err
	}
	result, err := s.puller.Referrers(r.Context(), q.repo, q.digest, wishesOf(r.Header)...)
	w.outcome = result.Outcome
	if err != nil {
		return err
	}
	list := result.List
	if list.IsZero() {
		if list, err = referrers.NewList(result.Manifests); err != nil {
			return err
		}
	}
	wanted := types
	if slices.ContainsFunc(types, hasSpace) {
		wanted = matchingTypes(types, list.Types())
	}
	if result.Partial && !list.Lists(wanted) {
		return errPartialReferrers // there may be some at a source that could not be reached
	}
	body, last := list.Page(after, wanted, referrers.MaxPage)
	header := w.Header()
	if len(types) > 0 {
		header["Oci-Filters-Applied"] = []string{"artifactType"}
	}
	if result.Stale {
		header.Add("Warning", staleWarning)
	}
	setAge(header, result.At)
	if last != "" {
		next := url.Values{"last": {last.String()}}
		if len(types) > 0 {
			next["artifactType"] = types
		}
		setNextLink(header, q, "referrers/"+q.digest.String(), next)
	}
	return w.writeBody(r, ocispec.MediaTypeImageIndex, body)
}

// parseCursor parses where a page begins, and the artifact types to filter by.
func parseCursor(query url.Values) (after referrers.Digest, types []string, err error) {
	if last := query.Get("last"); last != "" {
		if after, err = parseDigest(last); err != nil {
			return "", nil, err
		}
	}
	types = slices.DeleteFunc(query["artifactType"], func(t string) bool { return t == "" })
	return after, types, nil
}

func hasSpace(s string) bool { return strings.Contains(s, " ") }

// matchingTypes returns the requested types and those of a list that they may
// stand for. curl and scripts send the plus of a media type unescaped, and in a
// query it means a space (WHATWG URL, "urlencoded parsing"). A media type only
// has a space after the semicolon of a parameter.
func matchingTypes(types, listed []string) []string {
	all := slices.Clone(types)
	for _, t := range types {
		if !hasSpace(t) {
			continue
		}
		t = strings.ReplaceAll(t, " ", "+")
		for _, other := range listed {
			if strings.ReplaceAll(other, " ", "+") == t && !slices.Contains(all, other) {
				all = append(all, other)
			}
		}
	}
	return all
}
