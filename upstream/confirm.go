package upstream

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
)

// confirmsRepository reports whether a 404 in no particular form ("404 page not
// found", or an empty body) may be taken for the registry's answer about a
// repository. An ingress without a backend answers everything in the same way.
//
// It may if /v2/ answers as a registry does, and the repository's list of tags
// is answered or refused as a registry would: then there is a registry that
// knows the repository. This is checked each time, because the ingress may lose
// its backend at any moment.
func (r *Remote) confirmsRepository(ctx context.Context, repo string) bool {
	resp, err := r.roundTrip(ctx, request{kind: "ping", method: http.MethodGet}, r.home, r.endpoint.ping(), "")
	return err == nil && r.isRegistry(resp) && r.listsTags(ctx, repo)
}

// isRegistry reports whether a response to the ping is a registry's, and closes
// it.
func (r *Remote) isRegistry(resp *http.Response) bool {
	switch resp.StatusCode {
	case http.StatusOK:
		body, done, err := r.readDecoded(resp, maxErrorBody)
		defer done()
		resp.Body.Close()
		return err == nil && !isPage(resp, body) && !isText(resp, body)
	case http.StatusUnauthorized:
		drain(resp)
		_, ok := chooseChallenge(resp.Header.Values("WWW-Authenticate"))
		return ok
	}
	return readFailure(resp).form == formRegistry
}

func (r *Remote) listsTags(ctx context.Context, repo string) bool {
	a := request{kind: "tags", method: http.MethodGet, repo: repo, path: "tags/list", query: url.Values{"n": {"1"}}, accept: "application/json"}
	resp, err := r.home.do(ctx, a, r.location(a))
	if err != nil {
		return false
	}
	if resp.StatusCode != http.StatusOK {
		return readFailure(resp).form == formRegistry
	}
	body, done, err := r.readDecoded(resp, maxTagPage)
	defer done()
	resp.Body.Close()
	if err != nil || !json.Valid(body) {
		return false
	}
	_, err = parseTags(body)
	return err == nil
}
