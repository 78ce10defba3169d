package upstream

import (
	"fmt"
	"net/url"
	"strings"
)

// endpoint is where a registry is reached: the root that /v2/ hangs on, and
// what stands before each repository's name there.
type endpoint struct {
	root   *url.URL // no slash at its end
	prefix string   // empty, or with a slash at its end
}

// parseEndpoint reads an endpoint of the configuration. What follows /v2/ in
// its path is where its repositories lie, as with the proxy projects of Harbor,
// ECR, Artifact Registry, GitLab and Artifactory: of
// https://harbor.example/v2/hub the repository library/alpine is asked for as
// /v2/hub/library/alpine. A path without /v2/ stands before it.
func parseEndpoint(text string) (endpoint, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return endpoint{}, fmt.Errorf("endpoint %q is no http or https URL", text)
	case u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return endpoint{}, fmt.Errorf("endpoint %q has more than a scheme, a host and a path", text)
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

// at is the URL of a path below a repository.
func (e endpoint) at(repo, path string, query url.Values) *url.URL {
	u := *e.root
	u.Path += "/v2/" + repo + "/" + path
	u.RawQuery = query.Encode()
	return &u
}

// ping is the URL that says whether this is a registry (distribution-spec,
// "Determining Support").
func (e endpoint) ping() *url.URL {
	u := *e.root
	u.Path += "/v2/"
	return &u
}
