package upstream

import "testing"

func TestParseEndpoint(t *testing.T) {
	for text, want := range map[string]string{
		"https://registry-1.docker.io":              "https://registry-1.docker.io/v2/library/alpine/tags/list",
		"https://registry-1.docker.io/":             "https://registry-1.docker.io/v2/library/alpine/tags/list",
		"https://harbor.example/v2":                 "https://harbor.example/v2/library/alpine/tags/list",
		"https://harbor.example/v2/":                "https://harbor.example/v2/library/alpine/tags/list",
		"https://harbor.example/v2/hub-proxy":       "https://harbor.example/v2/hub-proxy/library/alpine/tags/list",
		"https://harbor.example/v2/hub-proxy/":      "https://harbor.example/v2/hub-proxy/library/alpine/tags/list",
		"https://gitlab.example:5050/v2/g/p":        "https://gitlab.example:5050/v2/g/p/library/alpine/tags/list",
		"https://rt.example/artifactory/api/hub":    "https://rt.example/artifactory/api/hub/v2/library/alpine/tags/list",
		"https://rt.example/artifactory/api/v2/hub": "https://rt.example/artifactory/api/v2/hub/library/alpine/tags/list",
		"http://nexus.example/repository/dockerv2":  "http://nexus.example/repository/dockerv2/v2/library/alpine/tags/list",
		"https://h.example/apiv2/v2/hub":            "https://h.example/apiv2/v2/hub/library/alpine/tags/list",
		"http://nexus.example/repository/dockerv2/": "http://nexus.example/repository/dockerv2/v2/library/alpine/tags/list",
	} {
		e, err := parseEndpoint(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := e.at(e.prefix+"library/alpine", "tags/list", nil).String(); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	for _, text := range []string{"", "registry.example", "ftp://registry.example", "https:///v2/", "https://a?x=1", "https://me:secret@a", "https://a#b", "://"} {
		if e, err := parseEndpoint(text); err == nil {
			t.Errorf("%q: %v", text, e)
		}
	}
}
