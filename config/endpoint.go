package config

import (
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Place is the location of an endpoint's repositories. For
// https://example.com/base/v2/hub the API is at /base/v2, and library/alpine is
// hub/library/alpine there. That is how the proxy projects of Harbor, ECR,
// Artifact Registry, GitLab and Artifactory are used. A path without v2 belongs
// to the base.
type Place struct {
	Scheme, Host string
	Base         string // before /v2: empty, or with a leading slash
	Prefix       string // before each repository: empty, or without leading and trailing slashes
}

// PlaceOf parses an endpoint of a checked configuration.
func PlaceOf(endpoint string) (Place, error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return Place{}, err
	}
	if u.Host == "" {
		return Place{}, errors.New("it has no host")
	}
	p := Place{Scheme: u.Scheme, Host: u.Host}
	path := strings.Trim(u.EscapedPath(), "/")
	if path == "" {
		return p, nil
	}
	segments := strings.Split(path, "/")
	base := segments
	if at := slices.Index(segments, "v2"); at >= 0 {
		base, p.Prefix = segments[:at], strings.Join(segments[at+1:], "/")
	}
	if len(base) > 0 {
		p.Base = "/" + strings.Join(base, "/")
	}
	return p, nil
}

// String returns the shortest form of the endpoint.
func (p Place) String() string {
	if p.Prefix == "" {
		return p.Origin() + p.Base
	}
	return p.API()
}

// Origin returns the endpoint's scheme and host.
func (p Place) Origin() string { return p.Scheme + "://" + p.Host }

// API returns what precedes each repository in URLs, without a trailing slash.
func (p Place) API() string {
	api := p.Origin() + p.Base + "/v2"
	if p.Prefix != "" {
		api += "/" + p.Prefix
	}
	return api
}

// Bare reports whether the endpoint has no path.
func (p Place) Bare() bool { return p.Base == "" && p.Prefix == "" }

// repositoryComponent is a component of a repository's name (distribution-spec,
// "Pulling manifests").
var repositoryComponent = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*$`)

// checkPlace checks that there can be repositories below the path of an
// endpoint.
func (r *report) checkPlace(key, endpoint string, p Place) bool {
	const fix = "after /v2/ write the prefix of the repositories, as in https://harbor.example.com/v2/dockerhub-proxy"
	segments := strings.Split(strings.TrimPrefix(p.Base, "/"), "/")
	if p.Base == "" {
		segments = nil
	}
	names := strings.Split(p.Prefix, "/")
	if p.Prefix == "" {
		names = nil
	}
	for _, segment := range slices.Concat(segments, names) {
		if segment == "" || segment == "." || segment == ".." {
			r.add(key, quoted(endpoint)+" has an empty segment or dots in its path", "write the path without them")
			return false
		}
	}
	for i, name := range names {
		// In a mirror such as this one, the prefix begins with a registry's
		// name, which may have a port.
		if repositoryComponent.MatchString(name) || i == 0 && isHostPort(name) {
			continue
		}
		if lower := strings.ToLower(p.Prefix); lower != p.Prefix && repositoryComponent.MatchString(strings.ToLower(name)) {
			p.Prefix = lower
			r.add(key, quoted(endpoint)+" has upper-case letters after /v2/", "repositories are lower-case: did you mean "+p.String()+"?")
		} else {
			r.add(key, quoted(endpoint)+" can't hold repositories: none begins with "+quoted(p.Prefix), fix)
		}
		return false
	}
	return true
}
