package upstream

import (
	"fmt"
	"net/url"
	"strings"
)

// endpoint is the location of a registry: the root to which /v2/ is appended,
// and a prefix of its repositories.
type endpoint struct {
	root   *url.URL // without a trailing slash
	prefix string   // empty, or with a trailing slash
}

// parseEndpoint parses a configured endpoint. Path segments after /v2/ are a
// prefix of the repositories, as in the proxy projects of Harbor, ECR, Artifact
// Registry, GitLab and Artifactory: with https://harbor.example/v2/hub,
// library/alpine is requested as /v2/hub/library/alpine. A path without /v2/ is
// put before it.
func parseEndpoint(text string) (endpoint, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return endpoint{}, fmt.Errorf("endpoint %q is not an http or https URL", text)
	case u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return endpoint{}, fmt.Errorf("endpoint %q may only have a scheme, a host and a path", text)
	}
	var before, below []string
	for i, segment := range strings.Split(strings.Trim(u.Path, "/"), "/") {
		if segment == "v2" {
			below = strings.Split(strings.Trim(u.Path, "/"), "/")[i+1:]
			break
		}
		if segment != "" {
			before = append(before, segment)
		}
	}
	e := endpoint{root: &url.URL{Scheme: u.Scheme, Host: u.Host}}
	if len(before) > 0 {
		e.root.Path = "/" + strings.Join(before, "/")
	}
	if len(below) > 0 {
		e.prefix = strings.Join(below, "/") + "/"
	}
	return e, nil
}

// at returns the URL of a path below a repository.
func (e endpoint) at(repo, path string, query url.Values) *url.URL {
	u := *e.root
	u.Path += "/v2/" + repo + "/" + path
	u.RawQuery = query.Encode()
	return &u
}

// ping returns the URL that shows whether this is a registry
// (distribution-spec, "Determining Support").
func (e endpoint) ping() *url.URL {
	u := *e.root
	u.Path += "/v2/"
	return &u
}
