package proxy

import (
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/entrepot/entrepot/proxy/pull"
)

// Upstream is what the routes need to know of an upstream.
type Upstream struct {
	Name    string
	Aliases []string
	Hosts   []string // virtual hosts, without a port
	Default bool
}

// routes maps names to the configured upstreams. The names are hosts, so their
// case does not matter.
type routes struct {
	names    map[string]string // names and aliases
	hosts    map[string]string
	fallback string // the default upstream
}

func newRoutes(upstreams []Upstream) *routes {
	r := &routes{names: map[string]string{}, hosts: map[string]string{}}
	for _, u := range upstreams {
		r.names[strings.ToLower(u.Name)] = u.Name
		for _, alias := range u.Aliases {
			r.names[strings.ToLower(alias)] = u.Name
		}
	}
	for _, u := range upstreams {
		for _, name := range append([]string{u.Name}, u.Aliases...) {
			// A repository name can't contain a port, so many clients can't use
			// such a prefix. An underscore may replace the colon.
			host, port, err := net.SplitHostPort(strings.ToLower(name))
			if _, taken := r.names[host+"_"+port]; err == nil && !taken {
				r.names[host+"_"+port] = u.Name
			}
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
	dockerHub  = "docker.io"
	hubLibrary = "library/"
)

// chooseUpstream finds the upstream of a request: by ns, or else by virtual
// host, prefix or default, in this order. Only configured upstreams can be
// chosen; nothing in a request is ever dialled.
//
// ns takes precedence because it says what the client wants, and the virtual
// host only where it sent the request. Choosing by the host would serve another
// registry's content under a name that the client trusts.
func (r *routes) chooseUpstream(q *route, host, ns, name string) error {
	q.rawName = name
	upstream := ""
	if ns != "" {
		if upstream = r.byNamespace(ns); upstream == "" {
			return unknownUpstream(ns)
		}
		q.ns = ns
	} else if len(r.hosts) > 0 {
		upstream = r.hosts[hostOf(host)]
	}
	first, rest, deep := strings.Cut(name, "/")
	switch prefix := r.byName(first); {
	case upstream != "":
		// A prefix that names the same upstream again is removed once.
		if deep && prefix == upstream {
			name = rest
		}
	case prefix != "":
		if !deep {
			return refuse(http.StatusNotFound, codeNameUnknown, fmt.Sprintf("%s is an upstream: the path must name a repository of it", first))
		}
		upstream, name = prefix, withoutVersion(rest)
	case deep && looksLikeHost(first):
		return unknownUpstream(first)
	case r.fallback == "":
		return refuse(http.StatusNotFound, codeNameUnknown, "the request names no upstream, and none is the default")
	default:
		upstream = r.fallback
	}
	if !isName(name) {
		return refuse(http.StatusBadRequest, codeNameInvalid, fmt.Sprintf("%.300q is not a repository name", name))
	}
	if upstream == dockerHub && !strings.Contains(name, "/") {
		name = hubLibrary + name
	}
	q.repo = pull.Repository{Upstream: upstream, Name: name}
	return nil
}

func (r *routes) byName(name string) string { return r.names[strings.ToLower(name)] }

// byNamespace returns the upstream that ns names, by name or by virtual host: a
// client may take a virtual host for the registry's name and send it in ns to
// another address.
func (r *routes) byNamespace(ns string) string {
	if upstream := r.byName(ns); upstream != "" {
		return upstream
	}
	return r.hosts[hostOf(ns)]
}

// withoutVersion removes the second v2/ of /v2/ghcr.io/v2/homebrew/core/….
// Until 2026, Homebrew replaced only the host with its artifact domain.
func withoutVersion(name string) string {
	if rest, ok := strings.CutPrefix(name, "v2/"); ok && strings.Contains(rest, "/") {
		return rest
	}
	return name
}

func unknownUpstream(name string) error {
	return refuse(http.StatusNotFound, codeNameUnknown, fmt.Sprintf("%.260q is not one of this mirror's upstreams", name))
}

func hostOf(hostport string) string {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

func looksLikeHost(s string) bool {
	return s == "localhost" || strings.ContainsAny(s, ".:") && s[0] != '.'
}
