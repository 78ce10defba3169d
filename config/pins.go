package config

import (
	"errors"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Pin is a pattern of images that stay: UPSTREAM/REPOSITORY, with :TAG or
// @DIGEST behind it, or every tag where neither is.
type Pin struct {
	Upstream   string
	Repository string // as in [Match]
	Tag        string // as in [MatchTag]; empty with a digest
	Digest     string
}

// ParsePin reads a pin. The error is a [Mistake] without a key.
func ParsePin(text string) (Pin, error) {
	const mend = "write it as docker.io/library/alpine:3.*, ghcr.io/org/** or quay.io/org/app@sha256:…"
	upstream, rest, ok := strings.Cut(text, "/")
	if !ok || upstream == "" || rest == "" {
		return Pin{}, Mistake{Problem: quoted(text) + " names no repository of an upstream", Mend: mend}
	}
	p := Pin{Upstream: upstream, Repository: rest, Tag: "*"}
	if repository, d, ok := strings.Cut(rest, "@"); ok {
		if _, err := digest.Parse(d); err != nil {
			return Pin{}, Mistake{Problem: quoted(text) + " has a malformed digest", Mend: mend}
		}
		p.Repository, p.Tag, p.Digest = repository, "", d
	} else if colon := strings.LastIndex(rest, ":"); colon > strings.LastIndex(rest, "/") {
		p.Repository, p.Tag = rest[:colon], rest[colon+1:]
	}
	if !isRepositoryPattern(p.Repository) || p.Digest == "" && !tagPattern.MatchString(p.Tag) {
		return Pin{}, Mistake{Problem: quoted(text) + " is no pattern of images", Mend: mend}
	}
	if upstream == dockerHub && !strings.Contains(p.Repository, "/") && p.Repository != "**" {
		p.Repository = "library/" + p.Repository
	}
	return p, nil
}

// isRepositoryPattern says whether a pattern can match any repository.
func isRepositoryPattern(pattern string) bool {
	for segment := range strings.SplitSeq(pattern, "/") {
		if segment != "**" && (!patternSegment.MatchString(segment) || strings.Contains(segment, "**")) {
			return false
		}
	}
	return true
}

// Matches says whether the pin is on a repository's tag or digest.
func (p Pin) Matches(upstream, repository, ref string) bool {
	if p.Upstream != upstream || !Match(p.Repository, repository) {
		return false
	}
	if p.Digest != "" {
		return ref == p.Digest
	}
	return !strings.Contains(ref, ":") && MatchTag(p.Tag, ref)
}

// Exact says that the pin names one image, which can be fetched without anyone
// having asked for it, and by which tag or digest.
func (p Pin) Exact() (ref string, ok bool) {
	ref = p.Tag + p.Digest
	return ref, !strings.Contains(p.Repository+ref, "*")
}

// PinList are the pins of a checked configuration, under the names of their
// upstreams.
func (c Config) PinList() []Pin {
	var all []Pin
	for _, text := range c.Pins {
		p, err := ParsePin(text)
		if err != nil {
			continue // the check has refused it
		}
		p.Upstream = c.upstreamNamed(p.Upstream)
		all = append(all, p)
	}
	return all
}

// upstreamNamed is the name of the upstream that a name or an alias means, or
// empty.
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
			r.add(at("pins", i), m.Problem, m.Mend)
			continue
		}
		if cfg.upstreamNamed(p.Upstream) != "" {
			continue
		}
		mend := "configured are " + strings.Join(names, ", ")
		if near := Nearest(p.Upstream, names); near != "" {
			mend = "did you mean " + near + "?"
		}
		r.add(at("pins", i), "no upstream is called "+quoted(p.Upstream), mend)
	}
}
