package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/retention"
	"github.com/entrepot/entrepot/proxy/warm"
)

// parseTarget parses the argument of a purge: REPOSITORY, REPOSITORY:TAG,
// REPOSITORY@DIGEST or DIGEST.
func parseTarget(cfg config.Config, text string) (retention.Target, error) {
	if d, err := digest.Parse(text); err == nil {
		return retention.Target{Ref: d.String()}, nil
	}
	repository, ref := text, ""
	if name, d, ok := strings.Cut(text, "@"); ok {
		if _, err := digest.Parse(d); err != nil {
			return retention.Target{}, usageError(fmt.Sprintf("%q has a malformed digest: write it as sha256:<64 hexadecimal digits>", text))
		}
		repository, ref = name, d
	} else if colon := strings.LastIndex(text, ":"); colon > strings.LastIndex(text, "/") {
		repository, ref = text[:colon], text[colon+1:]
		if ref == "" {
			return retention.Target{}, usageError(fmt.Sprintf("%q has no tag after its colon", text))
		}
	}
	repo, err := parseRepository(cfg, repository)
	if err != nil {
		return retention.Target{}, err
	}
	return retention.Target{Repository: repo, Ref: ref}, nil
}

// parseRepository parses a repository as clients write it. Without a registry
// host in front, it is one of the default upstream's.
func parseRepository(cfg config.Config, text string) (metadata.Repository, error) {
	upstream, name, _ := strings.Cut(text, "/")
	for _, u := range cfg.Upstreams {
		if u.Name == upstream || slices.Contains(u.Aliases, upstream) {
			return withLibrary(u.Name, name, text)
		}
	}
	if strings.ContainsAny(upstream, ".:") || upstream == "localhost" {
		return withLibrary(upstream, name, text) // an upstream that is no longer configured
	}
	for _, u := range cfg.Upstreams {
		if u.Default {
			return withLibrary(u.Name, text, text)
		}
	}
	return metadata.Repository{}, usageError(fmt.Sprintf("%q names no upstream: write it as ghcr.io/org/app", text))
}

func withLibrary(upstream, name, text string) (metadata.Repository, error) {
	if name == "" || strings.HasSuffix(name, "/") {
		return metadata.Repository{}, usageError(fmt.Sprintf("%q names no repository: write it as ghcr.io/org/app", text))
	}
	if upstream == "docker.io" && !strings.Contains(name, "/") {
		name = "library/" + name
	}
	return metadata.Repository{Upstream: upstream, Name: name}, nil
}

// parseImage parses the argument of a pin: REPOSITORY:TAG or REPOSITORY@DIGEST.
func parseImage(cfg config.Config, text string) (metadata.Reference, error) {
	t, err := parseTarget(cfg, text)
	if err != nil {
		return metadata.Reference{}, err
	}
	if t.Ref == "" || t.Repository == (metadata.Repository{}) {
		return metadata.Reference{}, usageError(fmt.Sprintf("%q names no image: write it as ghcr.io/org/app:TAG or ghcr.io/org/app@DIGEST", text))
	}
	return metadata.Reference(t), nil
}

var (
	repositoryName = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagName        = regexp.MustCompile(`^[\w][\w.-]{0,127}$`)
	tagPattern     = regexp.MustCompile(`^[\w.*?\[\]^-]{1,128}$`)
)

// parseWanted parses what is to be fetched: REPOSITORY, which means its tag
// latest as runtimes have it, REPOSITORY:TAG, where the tag may be a pattern,
// REPOSITORY@DIGEST, or REPOSITORY:TAG@DIGEST.
func parseWanted(cfg config.Config, text string) (retention.Selection, error) {
	name, at, hasDigest := strings.Cut(text, "@")
	var of retention.Selection
	if hasDigest {
		d, err := digest.Parse(at)
		if err != nil {
			return of, usageError(fmt.Sprintf("%q has a malformed digest: write it as sha256:<64 hexadecimal digits>", text))
		}
		of.At = d
	}
	ref := ""
	if colon := strings.LastIndex(name, ":"); colon > strings.LastIndex(name, "/") {
		name, ref = name[:colon], name[colon+1:]
		if !tagName.MatchString(ref) && (hasDigest || !warm.IsPattern(ref) || !tagPattern.MatchString(ref)) {
			return of, usageError(fmt.Sprintf("%q has no tag after its colon that a registry would take", text))
		}
	}
	repo, err := parseRepository(cfg, name)
	if err != nil {
		return of, err
	}
	if !repositoryName.MatchString(repo.Name) {
		return of, usageError(fmt.Sprintf("%q is no reference to an image: write it as ghcr.io/org/app:TAG", text))
	}
	switch {
	case ref == "" && hasDigest:
		ref, of.At = of.At.String(), ""
	case ref == "":
		ref = "latest"
	}
	of.Image = metadata.Reference{Repository: repo, Ref: ref}
	return of, nil
}
