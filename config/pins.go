package config

import (
	"errors"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Pin is a pattern of images that are not evicted: UPSTREAM/REPOSITORY, with
// :TAG or @DIGEST, or without either for all tags.
type Pin struct {
	Upstream   string
	Repository string // as in [Match]
	Tag        string // as in [MatchTag]; empty with a digest
	Digest     string
}

// ParsePin parses a pin. The error is a [Mistake] without a key.
func ParsePin(text string) (Pin, error) {
	const fix = "write it as docker.io/library/alpine:3.*, ghcr.io/org/** or quay.io/org/app@sha256:…"
	upstream, rest, ok := strings.Cut(text, "/")
	if !ok || upstream == "" || rest == "" {
		return Pin{}, Mistake{Problem: quoted(text) + " names no repository of an upstream", Fix: fix}
	}
	p := Pin{Upstream: upstream, Repository: rest, Tag: "*"}
	if repository, d, ok := strings.Cut(rest, "@"); ok {
		if _, err := digest.Parse(d); err != nil {
			return Pin{}, Mistake{Problem: quoted(text) + " has a malformed digest", Fix: fix}
		}
		p.Repository, p.Tag, p.Digest = repository, "", d
	} else if colon := strings.LastIndex(rest, ":"); colon > strings.LastIndex(rest, "/") {
		p.Repository, p.Tag = rest[:colon], rest[colon+1:]
	}
	if !isRepositoryPattern(p.Repository) || p.Digest == "" && !tagPattern.MatchString(p.Tag) {
		return Pin{}, Mistake{Problem: quoted(text) + " is no pattern of images", Fix: fix}
	}
	if upstream == dockerHub && !strings.Contains(p.Repository, "/") && p.Repository != "**" {
		p.Repository = "library/" + p.Repository
	}
	return p, nil
}

// isRepositoryPattern reports whether a pattern can match any repository.
func isRepositoryPattern(pattern string) bool {
	for segment := range strings.SplitSeq(pattern, "/") {
		if segment != "**" && (!patternSegment.MatchString(segment) || strings.Contains(segment, "**")) {
			return false
		}
	}
	return true
}

// Matches reports whether the pin matches a repository's tag or digest.
func (p Pin) Matches(upstream, repository, ref string) bool {
	if p.Upstream != upstream || !Match(p.Repository, repository) {
		return false
	}
	if p.Digest != "" {
		return ref == p.Digest
	}
	return !strings.Contains(ref, ":") && MatchTag(p.Tag, ref)
}

// Exact reports whether the pin names a single image, which can be fetched
// before a client asks for it, and returns its tag or digest.
func (p Pin) Exact() (ref string, ok bool) {
	ref = p.Tag + p.Digest
	return ref, !strings.Contains(p.Repository+ref, "*")
}

// PinList returns the pins of a checked configuration, with the names of their
// upstreams.
func (c Config) PinList() []Pin {
	var all []Pin
	for _, text := range c.Pins {
		p, err := ParsePin(text)
		if err != nil {
			continue // the check has reported it
		}
		p.Upstream = c.upstreamNamed(p.Upstream)
		all = append(all, p)
	}
	return all
}

// upstreamNamed returns the name of the upstream that a name or alias stands
// for, or "".
func (c Config) upstreamNamed(name string) string {
	for _, u := range c.Upstreams {
		if u.Name == name || slices.Contains(u.Aliases, name) {
			return u.Name
		}
	}
	return ""
}

func (r *report) checkPins(cfg *Config) {
	var names []string
	for _, u := range cfg.Upstreams {
		names = append(names, u.Name)
	}
	for i, text := range cfg.Pins {
		p, err := ParsePin(text)
		if err != nil {
			var m Mistake
			errors.As(err, &m)
			r.add(at("pins", i), m.Problem, m.Fix)
			continue
		}
		if cfg.upstreamNamed(p.Upstream) != "" {
			continue
		}
		fix := "configured upstreams: " + strings.Join(names, ", ")
		if near := Nearest(p.Upstream, names); near != "" {
			fix = "did you mean " + near + "?"
		}
		r.add(at("pins", i), "names no upstream: "+quoted(p.Upstream), fix)
	}
}
