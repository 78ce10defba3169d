package hosts

import (
	"errors"
	"strings"
)

// talos takes a RegistryMirrorConfig document for each registry, to be applied
// as patches of a machine's configuration.
func talos() Runtime {
	return Runtime{
		Name:      "talos",
		Elsewhere: true,
		Place:     func(Machine) string { return "." },
		Files: func(s Setting) (Layout, error) {
			return Layout{Files: []File{{Path: s.below("registry-mirrors.yaml"), Edit: alone("talos", s.Mirror.talosDocuments())}}}, nil
		},
		Comes: func(Setting, Registry) error {
			return errors.New("its configuration is on the machine: see talosctl get machineconfig")
		},
		Down: func(Version) string {
			return "nothing where the connection is refused, 30 s a request where its machine is gone or it hangs"
		},
		Restart: "nothing, after: talosctl patch machineconfig --patch @registry-mirrors.yaml",
	}
}

func (m Mirror) talosDocuments() string {
	var b strings.Builder
	for i, r := range m.Registries {
		if i > 0 {
			b.WriteString("---\n")
		}
		b.WriteString("apiVersion: v1alpha1\n")
		b.WriteString("kind: RegistryMirrorConfig\n")
		b.WriteString("name: " + quote(r.Name) + "\n")
		b.WriteString("endpoints:\n")
		for _, endpoint := range m.endpoints(r) {
			b.WriteString("  - url: " + quote(endpoint.url) + "\n")
			if endpoint.whole {
				b.WriteString("    overridePath: true\n")
			}
		}
	}
	return b.String()
}
