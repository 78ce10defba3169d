package upstream

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"time"
)

const (
	maxVouched = 4096
	vouchedFor = time.Minute
)

// vouches says whether a 404 that is in nobody's form ("404 page not found", no
// body at all) may be taken for the registry's word about a repository. The
// same is said by an ingress with nothing behind it, where everything is a 404.
//
// It may where /v2/ answers as a registry does, and the repository itself
// answers its list of tags, or refuses it, in a registry's form: then whoever
// answers is a registry, and knows the repository.
func (r *Remote) vouches(ctx context.Context, repo string) bool {
	if at, ok := r.vouched.Get(repo); ok && time.Since(at) < vouchedFor {
		return true
	}
	if !r.isRegistry(ctx) || !r.answersTags(ctx, repo) {
		return false
	}
	r.vouched.Add(repo, time.Now())
	return true
}

func (r *Remote) isRegistry(ctx context.Context) bool {
	resp, err := r.home.ask(ctx, ask{kind: "ping", method: http.MethodGet}, r.endpoint.ping())
	if err != nil {
		return false
	}
	switch resp.StatusCode {
	case http.StatusOK:
		body, err := readDecoded(resp, maxComplaint)
		resp.Body.Close()
		return err == nil && !isPage(resp, body) && !isText(resp, body)
	case http.StatusUnauthorized:
		_, ok := chooseChallenge(resp.Header.Values("WWW-Authenticate"))
		return listen(resp).form != formPage && ok
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
