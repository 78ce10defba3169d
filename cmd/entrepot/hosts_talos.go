package main

import "strings"

// talosFiles makes a RegistryMirrorConfig document for each registry, to be
// applied as patches of a machine's configuration.
func talosFiles(m mirrors) ([]configFile, error) {
	var b strings.Builder
	b.WriteString(madeBy("talos"))
	for i, r := range m.registries() {
		if i > 0 {
			b.WriteString("---\n")
		}
		b.WriteString("apiVersion: v1alpha1\n")
		b.WriteString("kind: RegistryMirrorConfig\n")
		b.WriteString("name: " + quote(r.name) + "\n")
		b.WriteString("endpoints:\n")
		for _, endpoint := range m.endpointsFor(r) {
			b.WriteString("  - url: " + quote(endpoint.url) + "\n")
			if endpoint.whole {
				b.WriteString("    overridePath: true\n")
			}
		}
	}
	return []configFile{{dir: "talos", path: "registry-mirrors.yaml", content: b.String()}}, nil
}
