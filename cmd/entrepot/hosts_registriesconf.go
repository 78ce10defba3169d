package main

import "strings"

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
			b.WriteString("\n")
			switch {
			case !r.elsewhere(): // docker.io is translated behind the location, not in it
			case r.server.Base != "" || strings.Contains(r.server.Prefix, ":"):
				b.WriteString("# " + r.name + " itself is left out: no location can be at " + r.server.API() + ".\n")
			case r.server.Prefix != "":
				location, insecure = r.server.Host+"/"+r.server.Prefix, r.server.Scheme == "http"
			default:
				location, insecure = r.server.Host, r.server.Scheme == "http"
			}
			b.WriteString("[[registry]]\n")
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
