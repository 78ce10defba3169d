package main

import "strings"

// registriesYAML makes the registries.yaml of k3s and rke2, which write
// containerd's hosts.toml from it, so that ?ns= tells the registry. An endpoint
// with a path they take for the whole path of the API.
func registriesYAML(distribution string) func(mirrors) ([]configFile, error) {
	return func(m mirrors) ([]configFile, error) {
		var b strings.Builder
		b.WriteString(madeBy(distribution))
		b.WriteString("mirrors:\n")
		for _, r := range m.registries() {
			b.WriteString("  " + quote(r.name) + ":\n    endpoint:\n")
			for _, endpoint := range m.endpointsFor(r) {
				b.WriteString("      - " + quote(endpoint.url) + "\n")
			}
		}
		return []configFile{{dir: "/etc/rancher/" + distribution, path: "registries.yaml", content: b.String()}}, nil
	}
}

// endpoint is a URL to try. Whole says that its path is that of the API.
type endpoint struct {
	url   string
	whole bool
}

// endpointsFor are the URLs to try in order, for runtimes that know by
// themselves only that a registry is at https://name, and where docker.io is.
func (m mirrors) endpointsFor(r mirrored) []endpoint {
	endpoints := []endpoint{{url: m.address.String()}}
	switch {
	case !r.elsewhere():
	case r.server.Bare():
		endpoints = append(endpoints, endpoint{url: r.server.Origin()})
	default:
		endpoints = append(endpoints, endpoint{url: r.server.API(), whole: true})
	}
	return endpoints
}
