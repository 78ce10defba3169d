package main

import (
	"net/url"
	"strings"
)

// registriesConf makes a drop-in for containers-registries.conf(5), version 2,
// which CRI-O, podman and skopeo share. They send no ?ns=, so the mirror's
// location carries the registry's name.
func registriesConf(runtime string) func(mirrors) ([]configFile, error) {
	return func(m mirrors) ([]configFile, error) {
		var b strings.Builder
		b.WriteString(madeBy(runtime))
		for _, r := range m.registries() {
			mirror := m.virtualHost(r.upstream)
			if prefix := prefixOf(r.upstream); prefix != "" {
				mirror = m.address.Host + "/" + prefix
			}
			if mirror == "" {
				b.WriteString("\n# " + r.name + " is left out: no image name can hold its port. Give it an alias without one.\n")
				continue
			}
			location, insecure := r.name, false
			// docker.io is translated behind the location, not in it.
			if server, err := url.Parse(r.server); err == nil && r.server != "" && r.upstream.Name != "docker.io" {
				location, insecure = server.Host, server.Scheme == "http"
			}
			b.WriteString("\n[[registry]]\n")
			b.WriteString("prefix = " + quote(r.name) + "\n")
			b.WriteString("location = " + quote(location) + "\n")
			if insecure {
				b.WriteString("insecure = true\n")
			}
			b.WriteString("\n[[registry.mirror]]\n")
			b.WriteString("location = " + quote(mirror) + "\n")
			if m.plainHTTP() {
				b.WriteString("insecure = true\n")
			}
		}
		return []configFile{{dir: "/etc/containers/registries.conf.d", path: "entrepot.conf", content: b.String()}}, nil
	}
}
