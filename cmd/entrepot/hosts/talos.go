package hosts

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"
)

// talos configures a machine by patches. From 1.12 on, each registry is a
// separate document. Earlier versions know only machine.registries, which 1.12
// reads as well.
func talos() Runtime {
	r := Runtime{
		Name:      "talos",
		Elsewhere: true,
		Version: func(text string) (Version, error) {
			v, ok := ParseVersion(text)
			if !ok || v.Minor == latest {
				return Version{}, errors.New("is not a version such as 1.12")
			}
			return v, nil
		},
		Place: func(Machine) string { return "." },
		Files: func(s Setting) (Layout, error) {
			certificates, err := s.certificatesAsText()
			if err != nil {
				return Layout{}, err
			}
			var layout Layout
			text := s.Mirror.talosPatch(certificates)
			switch {
			case s.Version.AtLeast(1, 12):
				text = s.Mirror.talosDocuments(certificates)
			case !s.Version.Known():
				layout.Notes = append(layout.Notes, "without --version this is machine.registries, which every Talos reads; give the version for Talos 1.12 and later, which have a document for each registry instead")
			}
			if s.Version.AtLeast(1, 12) {
				layout.Notes = append(layout.Notes, talosMerges+"; its settings in machine.registries no longer count")
			} else {
				layout.Notes = append(layout.Notes, talosMerges)
			}
			layout.Files = []File{{Path: s.below("registry-mirrors.yaml"), Edit: alone("talos", text)}}
			return layout, nil
		},
		Down: func(Version) string {
			return "nothing where the connection is refused, 30 s a request where its machine is gone or it hangs (before containerd 2.3 for as long as it hangs)"
		},
		Restart: "nothing, after: talosctl patch machineconfig --patch @registry-mirrors.yaml",
	}
	r.Comes = func(s Setting, _ Registry) error { return r.comesAsWritten(s) }
	return r
}

// talosMerges describes a patch: new items are added at the end of a list.
const talosMerges = "endpoints that a machine has for a registry stay before these: talosctl patch machineconfig --dry-run shows the result"

// certificatesAsText returns the content of each certificate file. Print needs
// it too, because a patch contains certificates, not file names.
func (s Setting) certificatesAsText() (map[string]string, error) {
	texts := map[string]string{}
	for _, file := range s.Mirror.caFiles() {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("certificates: %w", err)
		}
		texts[file] = string(content)
	}
	return texts, nil
}

// The endpoints include the registry itself if it has certificate settings.
// Talos has these settings only for endpoints, not for the registry that it
// falls back to.
func (m Mirror) talosEndpoints(r Registry) []endpoint {
	endpoints := m.endpoints(r)
	if len(endpoints) == len(m.Addresses) && (r.Server.CAFile != "" || r.Server.Insecure) {
		endpoints = append(endpoints, endpoint{url: r.Server.Origin()})
	}
	return endpoints
}

// talosDocuments returns the documents for 1.12 and later.
func (m Mirror) talosDocuments(certificates map[string]string) string {
	var documents []string
	for _, r := range m.Registries {
		var b strings.Builder
		b.WriteString("apiVersion: v1alpha1\nkind: RegistryMirrorConfig\nname: " + quote(r.Name) + "\nendpoints:\n")
		for _, endpoint := range m.talosEndpoints(r) {
			b.WriteString("  - url: " + quote(endpoint.url) + "\n")
			if endpoint.whole {
				b.WriteString("    overridePath: true\n")
			}
		}
		b.WriteString("skipFallback: false\n")
		documents = append(documents, b.String())
	}
	for _, h := range m.hostsWithTLS() {
		text := "apiVersion: v1alpha1\nkind: RegistryTLSConfig\nname: " + quote(h.host) + "\n"
		if h.ca != "" {
			text += "ca: |-\n" + indented(certificates[h.ca], "  ")
		}
		if h.insecure {
			text += "insecureSkipVerify: true\n"
		}
		documents = append(documents, text)
	}
	return strings.Join(documents, "---\n")
}

func indented(text, indent string) string {
	var b strings.Builder
	for line := range strings.Lines(strings.TrimSpace(text)) {
		b.WriteString(indent + strings.TrimRight(line, "\r\n") + "\n")
	}
	return b.String()
}

// talosPatch returns the patch for every version. It marks paths as that of the
// API for all endpoints of a registry at once.
func (m Mirror) talosPatch(certificates map[string]string) string {
	var b strings.Builder
	b.WriteString("machine:\n  registries:\n    mirrors:\n")
	for _, r := range m.Registries {
		endpoints := m.talosEndpoints(r)
		whole := false
		for _, endpoint := range endpoints {
			whole = whole || endpoint.whole
		}
		b.WriteString("      " + quote(r.Name) + ":\n        endpoints:\n")
		for _, endpoint := range endpoints {
			url := endpoint.url
			if whole && !endpoint.whole {
				url += "/v2"
			}
			b.WriteString("          - " + quote(url) + "\n")
		}
		if whole {
			b.WriteString("        overridePath: true\n")
		}
	}
	tls := m.hostsWithTLS()
	if len(tls) > 0 {
		b.WriteString("    config:\n")
	}
	for _, h := range tls {
		b.WriteString("      " + quote(h.host) + ":\n        tls:\n")
		if h.ca != "" {
			b.WriteString("          ca: " + base64.StdEncoding.EncodeToString([]byte(certificates[h.ca])) + "\n")
		}
		if h.insecure {
			b.WriteString("          insecureSkipVerify: true\n")
		}
	}
	return b.String()
}
