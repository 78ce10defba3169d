package proxy

import (
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/entrepot/entrepot/proxy/pull"
)

// Upstream is what the routes know of an upstream.
type Upstream struct {
	Name    string
	Aliases []string
	Hosts   []string // virtual hosts, without a port
	Default bool
}

// routes maps the names of the closed list. Names of registries are names of
// hosts: their case does not matter.
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
			// No repository's name can hold a port, and many clients can't ask
			// for one under such a prefix: an underscore stands in for the colon.
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

// choose finds the upstream: by ns, then virtual host, then prefix, then the
// default. The list is closed; nothing in a request is ever dialled.
//
// ns is what the client wants, a virtual host only where it happened to ask:
// answered by the host, it would get another registry's content under a name
// that it trusts.
func (r *routes) choose(q *route, host, ns, name string) error {
	q.asked = name
	upstream := ""
	if ns != "" {
		if upstream = r.meant(ns); upstream == "" {
			return unknownUpstream(ns)
		}
		q.ns = ns
	} else if len(r.hosts) > 0 {
		upstream = r.hosts[hostOf(host)]
	}
	first, rest, deep := strings.Cut(name, "/")
	switch prefix := r.named(first); {
	case upstream != "":
		// A prefix that says the same once more is taken off once.
		if deep && prefix == upstream {
			name = rest
		}
	case prefix != "":
		if !deep {
			return refuse(http.StatusNotFound, codeNameUnknown, fmt.Sprintf("%s is an upstream: the path lacks a repository of it", first))
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
		return refuse(http.StatusBadRequest, codeNameInvalid, fmt.Sprintf("%.300q is no repository name", name))
	}
	if upstream == dockerHub && !strings.Contains(name, "/") {
		name = hubLibrary + name
	}
	q.repo = pull.Repository{Upstream: upstream, Name: name}
	return nil
}

func (r *routes) named(name string) string { return r.names[strings.ToLower(name)] }

// meant is the upstream that ns means. A client that calls a virtual host the
// registry, and comes by another address, says so in ns.
func (r *routes) meant(ns string) string {
	if upstream := r.named(ns); upstream != "" {
		return upstream
	}
	return r.hosts[hostOf(ns)]
}

// withoutVersion takes off the second v2/ of /v2/ghcr.io/v2/homebrew/core/…:
// until 2026, Homebrew put its artifact domain in place of the host alone.
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
