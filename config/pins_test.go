package config

import (
	"strings"
	"testing"
)

func TestPinsMatch(t *testing.T) {
	const d = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for _, c := range []struct {
		pin                       string
		upstream, repository, ref string
		want                      bool
	}{
		{"docker.io/alpine:3.*", "docker.io", "library/alpine", "3.20", true},
		{"docker.io/alpine:3.*", "docker.io", "library/alpine", "4", false},
		{"docker.io/library/alpine", "docker.io", "library/alpine", "anything", true},
		{"docker.io/library/alpine", "docker.io", "library/alpine", d, false},
		{"docker.io/library/alpine", "docker.io", "library/alpine", "sha256-" + d[7:], false},
		{"ghcr.io/org/**", "ghcr.io", "org/a/b", "1", true},
		{"ghcr.io/org/**", "quay.io", "org/a/b", "1", false},
		{"quay.io/org/app@" + d, "quay.io", "org/app", d, true},
		{"quay.io/org/app@" + d, "quay.io", "org/app", "1", false},
	} {
		p, err := ParsePin(c.pin)
		if err != nil {
			t.Errorf("%s: %v", c.pin, err)
			continue
		}
		if got := p.Matches(c.upstream, c.repository, c.ref); got != c.want {
			t.Errorf("%s matches %s/%s %s: %v", c.pin, c.upstream, c.repository, c.ref, got)
		}
	}
}

func TestPinsThatNameOneImage(t *testing.T) {
	for text, want := range map[string]string{
		"docker.io/alpine:3.20": "3.20", "docker.io/alpine:3.*": "", "docker.io/alpine": "", "ghcr.io/org/*:1": "",
	} {
		p, err := ParsePin(text)
		if err != nil {
			t.Fatal(err)
		}
		if ref, ok := p.Exact(); ok != (want != "") || ok && ref != want {
			t.Errorf("%s names %q, %v", text, ref, ok)
		}
	}
}

func TestPinsThatAreNone(t *testing.T) {
	for _, text := range []string{"", "alpine", "docker.io/", "/alpine", "docker.io/alpine:", "docker.io//alpine", "quay.io/org/app@sha256:abc", "quay.io/@sha256:abc",
		// What can match nothing would be taken for a pin that holds.
		"docker.io/library/Alpine:3", "ghcr.io/org/app:1 ghcr.io/org/b", "ghcr.io/org**", "ghcr.io/org/app:-1", "ghcr.io/org/app;x:1",
	} {
		if p, err := ParsePin(text); err == nil || !strings.Contains(err.Error(), "write it as") {
			t.Errorf("%q is read as %+v, %v", text, p, err)
		}
	}
}
