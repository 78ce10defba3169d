package main

import (
	"slices"
	"strings"
)

// buildkitFiles makes a buildkitd.toml. A mirror there is a host and a path
// without a scheme, and plain HTTP is a matter of the host's own section. For
// a registry that no path can name, the ?ns= that BuildKit adds has to do.
//
// The registry itself it asks at its name. One that lies below a path is a
// second mirror, where it is the path of repositories and not of the API.
func buildkitFiles(m mirrors) ([]configFile, error) {
	var b strings.Builder
	b.WriteString(madeBy("buildkit"))
	var names, plain []string
	for _, r := range m.registries() {
		names = append(names, r.name)
		if r.server.Base != "" {
			b.WriteString("\n# " + r.name + " itself is left out: its API is below " + r.server.Base + ", which no mirror here can say.")
		}
		b.WriteString("\n[registry." + quote(r.name) + "]\n")
		mirror := m.address.Host
		if prefix := prefixOf(r.upstream); prefix != "" {
			mirror += "/" + prefix
		}
		mirrors := quote(mirror)
		if r.server.Base == "" && r.server.Prefix != "" {
			mirrors += ", " + quote(r.server.Host+"/"+r.server.Prefix)
			if r.server.Scheme == "http" {
				plain = append(plain, r.server.Host)
			}
		}
		b.WriteString("  mirrors = [" + mirrors + "]\n")
		if r.server.Scheme == "http" && r.server.Host == r.name {
			b.WriteString("  http = true\n")
		}
	}
	if m.plainHTTP() {
		plain = append(plain, m.address.Host)
	}
	slices.Sort(plain)
	for _, host := range slices.Compact(plain) {
		if slices.Contains(names, host) {
			continue // it has its section
		}
		b.WriteString("\n[registry." + quote(host) + "]\n")
		b.WriteString("  http = true\n")
	}
	return []configFile{{dir: "/etc/buildkit", path: "buildkitd.toml", content: b.String()}}, nil
}
