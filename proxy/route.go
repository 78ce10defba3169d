package proxy

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/proxy/pull"
)

// kind is what a request asks for.
type kind string

const (
	kindPing      kind = "ping"
	kindManifest  kind = "manifest"
	kindBlob      kind = "blob"
	kindTags      kind = "tags"
	kindReferrers kind = "referrers"
)

// route is a request, parsed once.
type route struct {
	kind kind
	repo pull.Repository
	// ref is a tag or digest of kindManifest; digest that of the other kinds.
	ref    string
	digest digest.Digest
	// asked is the repository in the client's own words, with the prefix it
	// used; ns is the namespace parameter that chose the upstream. Links go
	// back in the same form.
	asked, ns string
	query     url.Values // without ns
}

// parse reads a request without its body (distribution-spec, "Endpoints"). Of a
// request that it refuses, the route has what was understood.
func (r *routes) parse(req *http.Request) (q route, err error) {
	if req.URL.IsAbs() || req.URL.Host != "" {
		return q, errNoForwarding
	}
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		return q, errReadOnly
	}
	path := req.URL.EscapedPath()
	if strings.Contains(path, "%") {
		// The colon of a digest is the only character of the grammars that
		// clients escape. Everything else that is escaped stays so, and is no
		// part of any name then: an escaped slash never becomes one.
		path = strings.ReplaceAll(strings.ReplaceAll(path, "%3A", ":"), "%3a", ":")
	}
	rest, ok := strings.CutPrefix(path, "/v2")
	if !ok {
		return q, errNoRoute
	}
	if rest == "" || rest == "/" {
		q.kind = kindPing
		return q, nil
	}
	if rest, ok = strings.CutPrefix(rest, "/"); !ok {
		return q, errNoRoute
	}
	name, err := q.split(rest)
	if err != nil {
		return q, err
	}
	if req.URL.RawQuery != "" {
		if q.query, err = url.ParseQuery(req.URL.RawQuery); err != nil {
			return q, errQuery
		}
	}
	ns := q.query.Get("ns")
	delete(q.query, "ns")
	if err := r.choose(&q, req.Host, ns, name); err != nil {
		return q, err
	}
	if q.kind == kindTags {
		return q, checkPage(q.query)
	}
	return q, nil
}

// split takes the end off a path and returns the repository's name.
func (q *route) split(rest string) (name string, err error) {
	if name, ok := strings.CutSuffix(rest, "/tags/list"); ok {
		q.kind = kindTags
		return name, nil
	}
	name, api, last := cutTwo(rest)
	switch api {
	case "manifests":
		q.kind = kindManifest
		if !strings.Contains(last, ":") {
			if !isTag(last) {
				return "", errNoSuchTag
			}
			q.ref = last
			return name, nil
		}
	case "blobs":
		if last == "uploads" {
			return "", errNoUpload
		}
		q.kind = kindBlob
	case "referrers":
		if strings.HasSuffix(name, "/_oras/artifacts") {
			return "", errNoRoute
		}
		q.kind = kindReferrers
	case "uploads":
		if strings.HasSuffix(name, "/blobs") {
			return "", errNoUpload
		}
		return "", errNoRoute
	default:
		return "", errNoRoute
	}
	if q.digest, err = parseDigest(last); err != nil {
		return "", err
	}
	if q.kind == kindManifest {
		q.ref = last
	}
	return name, nil
}

// cutTwo cuts the last two segments off a path.
func cutTwo(path string) (head, second, last string) {
	at := strings.LastIndexByte(path, '/')
	if at < 0 {
		return "", "", path
	}
	head, last = path[:at], path[at+1:]
	if at = strings.LastIndexByte(head, '/'); at < 0 {
		return "", "", last
	}
	return head[:at], head[at+1:], last
}

// checkPage holds n against distribution-spec, "Listing Tags". Everything else
// in the query is the upstream's to understand: a next page may be named in
// words of its own.
func checkPage(query url.Values) error {
	for _, n := range query["n"] {
		if v, ok := parseOffset(n); !ok || v > maxInt32 {
			return refuse(http.StatusBadRequest, codePagination, fmt.Sprintf("n=%.20q is no number of tags", n))
		}
	}
	return nil
}
