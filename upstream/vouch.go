package upstream

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
)

// vouches says whether a 404 that is in nobody's form ("404 page not found", no
// body at all) may be taken for the registry's word about a repository. The
// same is said by an ingress with nothing behind it, where everything is a 404.
//
// It may where /v2/ answers as a registry does, and the repository itself
// answers its list of tags, or refuses it, in a registry's form: then whoever
// answers is a registry, and knows the repository. It is asked each time: in the
// next moment the ingress may have nothing behind it.
func (r *Remote) vouches(ctx context.Context, repo string) bool {
	resp, err := r.roundTrip(ctx, ask{kind: "ping", method: http.MethodGet}, r.home, r.endpoint.ping(), "")
	return err == nil && isRegistry(resp) && r.answersTags(ctx, repo)
}

// isRegistry says whether an answer to the ping is a registry's, and closes it.
func isRegistry(resp *http.Response) bool {
	switch resp.StatusCode {
	case http.StatusOK:
		body, err := readDecoded(resp, maxComplaint)
		resp.Body.Close()
		return err == nil && !isPage(resp, body) && !isText(resp, body)
	case http.StatusUnauthorized:
		drop(resp)
		_, ok := chooseChallenge(resp.Header.Values("WWW-Authenticate"))
		return ok
	}
	return listen(resp).form == formRegistry
}

func (r *Remote) answersTags(ctx context.Context, repo string) bool {
	a := ask{kind: "tags", method: http.MethodGet, repo: repo, path: "tags/list", query: url.Values{"n": {"1"}}, accept: "application/json"}
	resp, err := r.home.ask(ctx, a, r.location(a))
	if err != nil {
		return false
	}
	if resp.StatusCode != http.StatusOK {
		return listen(resp).form == formRegistry
	}
	body, err := readDecoded(resp, maxList)
	resp.Body.Close()
	if err != nil || !json.Valid(body) {
		return false
	}
	_, err = parseTags(body)
	return err == nil
}
