package config

import "testing"

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, repository string
		want                bool
	}{
		{"**", "library/alpine", true},
		{"**", "alpine", true},
		{"*", "alpine", true},
		{"*", "library/alpine", false},
		{"library/*", "library/alpine", true},
		{"library/*", "library/a/b", false},
		{"library/*", "library", false},
		{"org/**", "org/app", true},
		{"org/**", "org/team/app", true},
		{"org/**", "org", true},
		{"org/**", "organisation/app", false},
		{"**/app", "app", true},
		{"**/app", "org/team/app", true},
		{"**/app", "org/app/more", false},
		{"**/a/b", "a/a/b", true},
		{"org/aab", "org/aaab", false},
		{"org/*aab", "org/aaab", true},
		{"org/**/app", "org/app", true},
		{"org/**/app", "org/a/b/app", true},
		{"org/**/x/**/app", "org/a/x/b/x/app", true},
		{"org/**/x/**/app", "org/a/b/app", false},
		{"org/app-*", "org/app-1", true},
		{"org/app-*", "org/app-", true},
		{"org/*-app", "org/my-app-app", true},
		{"org/a*b*c", "org/aXbYc", true},
		{"org/a*b*c", "org/aXcYb", false},
		{"org/app", "org/app", true},
		{"org/app", "org/app2", false},
		{"org/app", "org", false},
	} {
		if got := Match(c.pattern, c.repository); got != c.want {
			t.Errorf("Match(%q, %q) = %v", c.pattern, c.repository, got)
		}
	}
}

func TestMatchIsQuickForPatternsOfManyStars(t *testing.T) {
	// Without bounds, 30 stars over 60 segments take longer than anybody waits.
	pattern, repository := "", ""
	for range 30 {
		pattern += "**/a*a*a/"
		repository += "aaaaaaaaaaaaaaaaaaaa/b/"
	}
	if Match(pattern+"x", repository+"y") {
		t.Error("matches")
	}
}

func TestDenyWinsOverAllow(t *testing.T) {
	u := Upstream{Allow: []string{"org/**", "library/*"}, Deny: []string{"org/secret/**"}}
	for repository, want := range map[string]bool{
		"org/app": true, "library/alpine": true, "org/secret/app": false, "other/app": false,
	} {
		if got := u.Allows(repository); got != want {
			t.Errorf("%s: got %v", repository, got)
		}
	}
}

func TestImmutableNeverHoldsForFallbackTagsW56(t *testing.T) {
	const hex = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
	u := Upstream{ImmutableTags: []string{"v*.*.*", "*-*"}}
	for tag, want := range map[string]bool{
		"v1.2.3": true, "v1.2": false, "latest": false, "main-0b1c2d3": true, "2026-07-01": true,
		"sha256-" + hex: false, "sha256-" + hex + ".sig": false, "sha256-" + hex + ".att": false,
		"sha512-" + hex: false, "sha512-" + hex + hex: false,
	} {
		if got := u.Immutable(tag); got != want {
			t.Errorf("%s: got %v, want %v", tag, got, want)
		}
	}
}
