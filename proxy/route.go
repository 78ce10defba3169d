package proxy

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
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
	// used; ns is its namespace parameter. Links go back in the same form.
	asked, ns string
}

// Upstream is what the routes know of an upstream.
type Upstream struct {
	Name    string
	Aliases []string
	Hosts   []string // virtual hosts
	Default bool
}

// routes maps the names of the closed list.
type routes struct {
	names    map[string]string // names and aliases
	hosts    map[string]string
	fallback string // the default upstream
}

func newRoutes(upstreams []Upstream) routes {
	r := routes{names: map[string]string{}, hosts: map[string]string{}}
	for _, u := range upstreams {
		r.names[u.Name] = u.Name
		for _, alias := range u.Aliases {
			r.names[alias] = u.Name
		}
		for _, host := range u.Hosts {
			r.hosts[strings.ToLower(host)] = u.Name
		}
		if u.Default {
			r.fallback = u.Name
		}
	}
	return r
}

const (
	maxName    = 255 // distribution-spec, "Pulling manifests"
	maxTag     = 128
	dockerHub  = "docker.io"
	hubLibrary = "library/"
)

// parse reads a request (distribution-spec, "Endpoints").
func (r routes) parse(req *http.Request) (route, error) {
	if req.URL.IsAbs() || req.URL.Host != "" {
		return route{}, refuse(http.StatusBadRequest, codeUnsupported, "this is no forward proxy: ask for a path")
	}
	if req.ContentLength != 0 {
		return route{}, refuse(http.StatusBadRequest, codeUnsupported, "a request without a body is expected")
	}
	path := req.URL.EscapedPath()
	if strings.Contains(path, "%") {
		// Nothing in the grammar of names, tags and digests needs escaping but
		// the colon of a digest, which some clients escape.
		path = strings.NewReplacer("%3A", ":", "%3a", ":").Replace(path)
		if strings.Contains(path, "%") {
			return route{}, refuse(http.StatusBadRequest, codeNameInvalid, "escaped characters are no part of a name")
		}
	}
	if path == "/v2" || path == "/v2/" {
		return route{kind: kindPing}, nil
	}
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok {
		return route{}, errNoRoute
	}
	q, name, err := split(rest)
	if err != nil {
		return route{}, err
	}
	if isRead := req.Method == http.MethodGet || req.Method == http.MethodHead; !isRead {
		return route{}, errReadOnly
	}
	query, err := url.ParseQuery(req.URL.RawQuery)
	if err != nil {
		return route{}, refuse(http.StatusBadRequest, codeUnsupported, "the query cannot be read")
	}
	if err := r.choose(&q, req.Host, query["ns"], name); err != nil {
		return route{}, err
	}
	if q.kind == kindTags {
		if n := query.Get("n"); n != "" {
			if v, err := strconv.Atoi(n); err != nil || v < 0 {
				return route{}, refuse(http.StatusBadRequest, "PAGINATION_NUMBER_INVALID", fmt.Sprintf("n=%.20q is no number of tags", n))
			}
		}
	}
	return q, nil
}

// split takes the end off a path: what is left is the name.
func split(rest string) (q route, name string, err error) {
	if strings.Contains(rest, "/blobs/uploads") {
		return q, "", errReadOnly
	}
	if name, ok := strings.CutSuffix(rest, "/tags/list"); ok {
		return route{kind: kindTags}, name, nil
	}
	at := strings.LastIndexByte(rest, '/')
	if at < 0 {
		return q, "", errNoRoute
	}
	head, last := rest[:at], rest[at+1:]
	at = strings.LastIndexByte(head, '/')
	if at < 0 {
		return q, "", errNoRoute
	}
	name = head[:at]
	switch head[at+1:] {
	case "manifests":
		q.kind, q.ref = kindManifest, last
		if strings.Contains(last, ":") {
			if q.digest, err = parseDigest(last); err != nil {
				return q, "", err
			}
		} else if !isTag(last) {
			// W7: the conformance suite asks for such a name and wants a 404.
			return q, "", refuse(http.StatusNotFound, codeManifestUnknown, "no tag has such a name")
		}
		return q, name, nil
	case "blobs":
		q.kind = kindBlob
	case "referrers":
		if strings.HasSuffix(name, "/_oras/artifacts") {
			return q, "", errNoRoute
		}
		q.kind = kindReferrers
	default:
		return q, "", errNoRoute
	}
	q.digest, err = parseDigest(last)
	return q, name, err
}

func parseDigest(s string) (digest.Digest, error) {
	d, err := digest.Parse(s)
	if err != nil {
		return "", refuse(http.StatusBadRequest, codeDigestInvalid, fmt.Sprintf("%.140q is no digest: %v", s, err))
	}
	return d, nil
}

// choose finds the upstream: by virtual host, then ns, then prefix, then the
// default. The list is closed; nothing in a request is ever dialled.
func (r routes) choose(q *route, host string, ns []string, name string) error {
	q.asked = name
	upstream := r.hosts[hostOf(host)]
	if upstream == "" && len(ns) > 0 && ns[0] != "" {
		q.ns = ns[0]
		if upstream = r.names[ns[0]]; upstream == "" {
			return unknownUpstream(ns[0])
		}
	}
	first, rest, deep := strings.Cut(name, "/")
	switch {
	case upstream != "":
		// A prefix that says the same once more is taken off once.
		if deep && r.names[first] == upstream {
			name = rest
		}
	case r.names[first] != "":
		if !deep {
			return refuse(http.StatusNotFound, codeNameUnknown, fmt.Sprintf("%s is an upstream: a repository of it is missing", first))
		}
		upstream, name = r.names[first], rest
	case deep && looksLikeHost(first):
		return unknownUpstream(first)
	case r.fallback == "":
		return refuse(http.StatusNotFound, codeNameUnknown, "the request names no upstream, and none is the default")
	default:
		upstream = r.fallback
	}
	if !isName(name) {
		return refuse(http.StatusBadRequest, codeNameInvalid, fmt.Sprintf("%.300q is no repository name", name))
	}
	if upstream == dockerHub && !strings.Contains(name, "/") {
		name = hubLibrary + name
	}
	q.repo = pull.Repository{Upstream: upstream, Name: name}
	return nil
}

func unknownUpstream(name string) error {
	return refuse(http.StatusNotFound, codeNameUnknown, fmt.Sprintf("%.260q is not one of this mirror's upstreams", name))
}

func hostOf(hostport string) string {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	return strings.ToLower(host)
}

func looksLikeHost(s string) bool {
	return s == "localhost" || strings.ContainsAny(s, ".:")
}

// isName holds a name against the grammar: [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*
// and slashes between.
func isName(s string) bool {
	if s == "" || len(s) > maxName {
		return false
	}
	for part := range strings.SplitSeq(s, "/") {
		if !isComponent(part) {
			return false
		}
	}
	return true
}

func isComponent(s string) bool {
	for i := 0; i < len(s); {
		start := i
		for i < len(s) && isAlphanumeric(s[i]) {
			i++
		}
		if i == start {
			return false
		}
		if i == len(s) {
			return true
		}
		switch s[i] {
		case '.':
			i++
		case '_':
			if i++; i < len(s) && s[i] == '_' {
				i++
			}
		case '-':
			for i < len(s) && s[i] == '-' {
				i++
			}
		default:
			return false
		}
	}
	return false // empty, or a separator at the end
}

func isAlphanumeric(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }

// isTag holds a tag against the grammar: [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}.
func isTag(s string) bool {
	if s == "" || len(s) > maxTag || s[0] == '.' || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isAlphanumeric(c) && (c < 'A' || c > 'Z') && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

var (
	errNoRoute  = refuse(http.StatusNotFound, codeUnsupported, "no such endpoint in the distribution-spec")
	errReadOnly = refuse(http.StatusMethodNotAllowed, codeUnsupported, "this is a read-only mirror: push to, and delete from, the upstream itself")
)

// refusal is a request that is answered without asking anybody.
type refusal struct {
	status        int
	code, message string
}

func (r *refusal) Error() string { return r.message }

func refuse(status int, code, message string) error { return &refusal{status, code, message} }
