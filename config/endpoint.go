package config

import (
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Place is where an endpoint has its repositories. Of
// https://example.com/base/v2/hub the API is at /base/v2, and the repository
// library/alpine is hub/library/alpine there: so the proxy projects of Harbor,
// ECR, Artifact Registry, GitLab and Artifactory are reached. Without a v2 in
// it, a path is all of the base.
type Place struct {
	Scheme, Host string
	Base         string // before /v2: empty, or with a slash at its start
	Prefix       string // before each repository: empty, or without slashes around it
}

// PlaceOf reads an endpoint of a checked configuration.
func PlaceOf(endpoint string) (Place, error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return Place{}, err
	}
	if u.Host == "" {
		return Place{}, errors.New("it names no host")
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

// String is the endpoint in its shortest form.
func (p Place) String() string {
	if p.Prefix == "" {
		return p.Origin() + p.Base
	}
	return p.API()
}

// Origin is the endpoint's scheme and host.
func (p Place) Origin() string { return p.Scheme + "://" + p.Host }

// API is what stands before each repository's name in URLs, without a slash at
// the end.
func (p Place) API() string {
	api := p.Origin() + p.Base + "/v2"
	if p.Prefix != "" {
		api += "/" + p.Prefix
	}
	return api
}

// Bare says that the registry is all of its host.
func (p Place) Bare() bool { return p.Base == "" && p.Prefix == "" }

// component is of a repository's name, as in the distribution-spec, "Pulling
// manifests".
var component = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*$`)

// checkPlace wants the path of an endpoint to be one under which there can be
// repositories.
func (r *report) checkPlace(key, endpoint string, p Place) bool {
	const mend = "behind /v2/ stands what repositories begin with, as in https://harbor.example.com/v2/dockerhub-proxy"
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
			r.add(key, quoted(endpoint)+" has an empty segment, or dots, in its path", "write the path as it is asked for")
			return false
		}
	}
	for i, name := range names {
		// A mirror such as this one has a registry's name first, with a port too.
		if component.MatchString(name) || i == 0 && isHostPort(name) {
			continue
		}
		if lower := strings.ToLower(p.Prefix); lower != p.Prefix && component.MatchString(strings.ToLower(name)) {
			p.Prefix = lower
			r.add(key, quoted(endpoint)+" has capitals behind /v2/", "repositories are in lower case: did you mean "+p.String()+"?")
		} else {
			r.add(key, quoted(endpoint)+" can't hold repositories: none begins with "+quoted(p.Prefix), mend)
		}
		return false
	}
	return true
}
