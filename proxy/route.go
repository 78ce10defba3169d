package proxy

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/proxy/pull"
)

// kind is the kind of a request.
type kind string

const (
	kindPing      kind = "ping"
	kindManifest  kind = "manifest"
	kindBlob      kind = "blob"
	kindTags      kind = "tags"
	kindReferrers kind = "referrers"
)

// route is a parsed request.
type route struct {
	kind kind
	repo pull.Repository
	// ref is the tag or digest of a kindManifest request; digest is that of the
	// other kinds.
	ref    string
	digest digest.Digest
	// rawName is the repository as the client named it, with the prefix it
	// used. ns is the namespace parameter that chose the upstream. Links use
	// the same form.
	rawName, ns string
	query       url.Values // without ns
}

// parse parses a request except for its body (distribution-spec, "Endpoints").
// If it returns an error, the route holds what was parsed so far.
func (r *routes) parse(req *http.Request) (q route, err error) {
	if firstLineSize(req) > maxOtherHeader {
		return q, errFirstLine
	}
	if req.URL.IsAbs() || req.URL.Host != "" {
		return q, errForwardProxy
	}
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		return q, errReadOnly
	}
	path := req.URL.EscapedPath()
	if strings.Contains(path, "%") {
		// The colon of a digest is the only character of the grammars that
		// clients escape. Everything else stays escaped and does not match any
		// name: an escaped slash never becomes a separator.
		path = strings.ReplaceAll(strings.ReplaceAll(path, "%3A", ":"), "%3a", ":")
	}
	rest, ok := strings.CutPrefix(path, "/v2")
	if !ok {
		return q, errUnknownEndpoint
	}
	if rest == "" || rest == "/" {
		q.kind = kindPing
		return q, nil
	}
	if rest, ok = strings.CutPrefix(rest, "/"); !ok {
		return q, errUnknownEndpoint
	}
	if name := strings.TrimSuffix(rest, "/"); !strings.Contains(name, "/") && name != "" && name[0] != '_' {
		return r.pingOf(name, req.URL.RawQuery)
	}
	name, err := q.split(rest)
	if err != nil {
		return q, err
	}
	if req.URL.RawQuery != "" {
		if q.query, err = parseQuery(req.URL.RawQuery); err != nil {
			return q, errQuery
		}
	}
	ns := q.query.Get("ns")
	delete(q.query, "ns")
	if err := r.chooseUpstream(&q, req.Host, ns, name); err != nil {
		return q, err
	}
	if q.kind == kindTags {
		return q, readablePage(q.query)
	}
	return q, nil
}

// pingOf is the ping of a client that puts a prefix where others have only /v2
// (F13). Names that begin with an underscore are endpoints of the specification.
func (r *routes) pingOf(name, query string) (q route, err error) {
	q.kind = kindPing
	if q.repo.Upstream = r.byName(name); q.repo.Upstream == "" {
		return q, unknownUpstream(name)
	}
	parsed, err := parseQuery(query)
	if err != nil {
		return q, errQuery
	}
	if q.ns = parsed.Get("ns"); q.ns != "" && r.byNamespace(q.ns) == "" {
		return q, unknownUpstream(q.ns)
	}
	return q, nil
}

// parseQuery is url.ParseQuery, except that a semicolon is part of a value
// (WHATWG URL, "urlencoded parsing"): the parameters of a media type begin with
// one.
func parseQuery(raw string) (url.Values, error) {
	return url.ParseQuery(strings.ReplaceAll(raw, ";", "%3B"))
}

// split sets the route's kind and reference from the end of a path, and returns
// the repository name.
func (q *route) split(rest string) (name string, err error) {
	if name, ok := strings.CutSuffix(rest, "/tags/list"); ok {
		q.kind = kindTags
		return name, nil
	}
	name, api, last := splitLastTwo(rest)
	switch api {
	case "manifests":
		q.kind = kindManifest
		if !strings.Contains(last, ":") {
			if !isTag(last) {
				return "", errInvalidTag
			}
			q.ref = last
			return name, nil
		}
	case "blobs":
		if last == "uploads" {
			return "", errUpload
		}
		q.kind = kindBlob
	case "referrers":
		if strings.HasSuffix(name, "/_oras/artifacts") {
			return "", errUnknownEndpoint
		}
		q.kind = kindReferrers
	case "uploads":
		if strings.HasSuffix(name, "/blobs") {
			return "", errUpload
		}
		return "", errUnknownEndpoint
	default:
		return "", errUnknownEndpoint
	}
	if q.digest, err = parseDigest(last); err != nil {
		return "", err
	}
	if q.kind == kindManifest {
		q.ref = last
	}
	return name, nil
}

// splitLastTwo splits the last two segments off a path.
func splitLastTwo(path string) (head, second, last string) {
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

// maxListQuery is the largest query of a list, in bytes. Next pages of some
// registries have long names.
const maxListQuery = 4 << 10

// readablePage removes an n that is not a number, as registries do that ignore
// it (distribution-spec, "Listing Tags"). The rest of the query stays, because
// an upstream may name its next page with parameters of its own.
func readablePage(query url.Values) error {
	if len(query.Encode()) > maxListQuery {
		return refuse(http.StatusBadRequest, codeUnsupported, fmt.Sprintf("the query has more than %d bytes", maxListQuery))
	}
	readable := slices.DeleteFunc(query["n"], func(n string) bool {
		v, ok := parseOffset(n)
		return !ok || v > maxInt32
	})
	if delete(query, "n"); len(readable) > 0 {
		query["n"] = readable[:1]
	}
	return nil
}
