package main

import "strings"

// registriesYAML makes the registries.yaml of k3s and rke2, which write
// containerd's hosts.toml from it, so that ?ns= tells the registry.
func registriesYAML(distribution string) func(mirrors) ([]configFile, error) {
	return func(m mirrors) ([]configFile, error) {
		var b strings.Builder
		b.WriteString(madeBy(distribution))
		b.WriteString("mirrors:\n")
		for _, r := range m.registries() {
			b.WriteString("  " + quote(r.name) + ":\n    endpoint:\n")
			for _, endpoint := range m.endpointsFor(r) {
				b.WriteString("      - " + quote(endpoint) + "\n")
			}
		}
		return []configFile{{dir: "/etc/rancher/" + distribution, path: "registries.yaml", content: b.String()}}, nil
	}
}

// endpointsFor are the URLs to try in order, for runtimes that know by
// themselves only that a registry is at https://name, and where docker.io is.
func (m mirrors) endpointsFor(r mirrored) []string {
	endpoints := []string{m.address.String()}
	if r.server != "" && r.upstream.Name != "docker.io" {
		endpoints = append(endpoints, r.server)
	}
	return endpoints
}
