package config

import (
	"strings"
	"testing"
)

func TestAnEndpointMayLieBelowAPath(t *testing.T) {
	clean(t)
	for endpoint, want := range map[string]struct{ written, api string }{
		"https://registry.example.com":                                    {"", "https://registry.example.com/v2"},
		"https://registry.example.com/":                                   {"https://registry.example.com", "https://registry.example.com/v2"},
		"https://registry.example.com/v2":                                 {"https://registry.example.com", "https://registry.example.com/v2"},
		"https://registry.example.com/v2/":                                {"https://registry.example.com", "https://registry.example.com/v2"},
		"https://harbor.example.com/v2/dockerhub-proxy":                   {"", "https://harbor.example.com/v2/dockerhub-proxy"},
		"https://harbor.example.com/v2/dockerhub-proxy/":                  {"https://harbor.example.com/v2/dockerhub-proxy", "https://harbor.example.com/v2/dockerhub-proxy"},
		"https://europe-docker.pkg.dev/v2/project/hub":                    {"", "https://europe-docker.pkg.dev/v2/project/hub"},
		"https://gitlab.example.com/v2/group/dependency_proxy/containers": {"", "https://gitlab.example.com/v2/group/dependency_proxy/containers"},
		"https://nexus.example.com/repository/Hub":                        {"", "https://nexus.example.com/repository/Hub/v2"},
		"https://nexus.example.com/repository/Hub/v2/":                    {"https://nexus.example.com/repository/Hub", "https://nexus.example.com/repository/Hub/v2"},
		"https://artifactory.example.com/api/docker/hub/v2/library":       {"", "https://artifactory.example.com/api/docker/hub/v2/library"},
		"http://parent:5000/v2/registry.example.com:5000":                 {"", "http://parent:5000/v2/registry.example.com:5000"},
		"https://registry.example.com/apiv2":                              {"", "https://registry.example.com/apiv2/v2"},
		"https://registry.example.com/apiv2/v2/hub":                       {"", "https://registry.example.com/apiv2/v2/hub"},
		"https://registry.example.com/v2/hub/v2":                          {"", "https://registry.example.com/v2/hub/v2"}, // a repository of that name
		"https://registry.example.com/v2/v2/hub":                          {"", "https://registry.example.com/v2/v2/hub"},
		"https://[fd00::1]:5000/v2/hub":                                   {"", "https://[fd00::1]:5000/v2/hub"},
		"https://registry.example.com/with%20space/v2/hub":                {"", "https://registry.example.com/with%20space/v2/hub"},
	} {
		cfg, _, err := Load(Options{File: write(t, "c.yaml", "upstreams: [{name: a.b, endpoints: [\""+endpoint+"\"]}]\n")})
		if err != nil {
			t.Errorf("%s: %v", endpoint, err)
			continue
		}
		if want.written == "" {
			want.written = endpoint
		}
		place, err := PlaceOf(cfg.Upstreams[0].Endpoints[0])
		if got := cfg.Upstreams[0].Endpoints[0]; got != want.written || err != nil || place.API() != want.api {
			t.Errorf("%s is read as %s, asked at %s (%v), want %s and %s", endpoint, got, place.API(), err, want.written, want.api)
		}
	}
}

// FuzzEndpoint holds every endpoint that is accepted to one meaning: in its
// shortest form it is the same place, and is accepted again.
func FuzzEndpoint(f *testing.F) {
	for _, endpoint := range []string{
		"https://a.b", "https://a.b/v2/", "http://a.b:5000/base/v2/hub/", "https://a.b/v2/c.d:5000/e", "https://a.b//v2", "https://a.b/v2/../x", "https://a.b/%2e%2e/v2/x",
		"https://a.b/v2?x#y", "https://[::1]/v2/x", "https://u:p@a.b/", "HTTPS://A.b/V2/x", "https://a.b/v2/A", "https://a.b/x\\y/v2/z",
	} {
		f.Add(endpoint)
	}
	f.Fuzz(func(t *testing.T, endpoint string) {
		check := func(endpoint string) (string, bool) {
			r := &report{places: map[string]Origin{}}
			r.checkEndpoint("e", &endpoint, &Config{Listen: "127.0.0.1:5000"})
			return endpoint, r.err() == nil
		}
		short, ok := check(endpoint)
		if !ok {
			return
		}
		again, ok := check(short)
		if !ok || again != short {
			t.Fatalf("%q is %q, which is %q, %v", endpoint, short, again, ok)
		}
		place, err := PlaceOf(short)
		if err != nil {
			t.Fatal(err)
		}
		if strings.ContainsAny(place.Prefix, "%?#@\\ ") || strings.Contains(place.API(), "/../") || strings.Contains(strings.TrimPrefix(place.API(), place.Scheme+"://"), "//") {
			t.Fatalf("%q is asked at %q", endpoint, place.API())
		}
	})
}
