package main

import (
	"errors"
	"slices"

	"github.com/entrepot/entrepot/config"
)

// homebrewFiles makes a brew.env. Homebrew pulls its bottles from ghcr.io, and
// puts this in place of https://ghcr.io/v2 in their URLs.
func homebrewFiles(m mirrors) ([]configFile, error) {
	if !slices.ContainsFunc(m.upstreams, func(u config.Upstream) bool { return u.Name == "ghcr.io" }) {
		return nil, errors.New("homebrew pulls from ghcr.io, which is not among the upstreams")
	}
	content := madeBy("homebrew") + "HOMEBREW_ARTIFACT_DOMAIN=" + m.address.String() + "/v2/ghcr.io\n"
	return []configFile{{dir: "/etc/homebrew", path: "brew.env", content: content}}, nil
}
