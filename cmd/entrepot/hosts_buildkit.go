package main

import "strings"

// buildkitFiles makes a buildkitd.toml. A mirror there is a host and a path
// without a scheme, and plain HTTP is a matter of the host's own section. For
// a registry that no path can name, the ?ns= that BuildKit adds has to do.
func buildkitFiles(m mirrors) ([]configFile, error) {
	var b strings.Builder
	b.WriteString(madeBy("buildkit"))
	for _, r := range m.registries() {
		b.WriteString("\n[registry." + quote(r.name) + "]\n")
		mirror := m.address.Host
		if prefix := prefixOf(r.upstream); prefix != "" {
			mirror += "/" + prefix
		}
		b.WriteString("  mirrors = [" + quote(mirror) + "]\n")
		if r.server == "http://"+r.name {
			b.WriteString("  http = true\n")
		}
	}
	if m.plainHTTP() {
		b.WriteString("\n[registry." + quote(m.address.Host) + "]\n")
		b.WriteString("  http = true\n")
	}
	return []configFile{{dir: "/etc/buildkit", path: "buildkitd.toml", content: b.String()}}, nil
}
