package hosts

import "strings"

// registriesYAML is the registries.yaml of k3s and rke2, which write
// containerd's hosts.toml from it, so that ?ns= tells the registry. An endpoint
// with a path they take for the whole path of the API.
func registriesYAML(distribution string) Runtime {
	r := Runtime{
		Name:      distribution,
		Elsewhere: true,
		Place:     func(m Machine) string { return m.System("/etc/rancher/" + distribution) },
		Down: func(Version) string {
			return "nothing where the connection is refused, 30 s a request where its machine is gone or it hangs"
		},
		Restart: "the node's service: systemctl restart " + distribution + " or its agent",
	}
	r.Files = func(s Setting) (Layout, error) {
		return Layout{Files: []File{{Path: s.below("registries.yaml"), Edit: alone(distribution, s.Mirror.registriesYAML())}}}, nil
	}
	r.Comes = func(s Setting, _ Registry) error { return r.comesAsWritten(s) }
	return r
}

func (m Mirror) registriesYAML() string {
	var b strings.Builder
	b.WriteString("mirrors:\n")
	for _, r := range m.Registries {
		b.WriteString("  " + quote(r.Name) + ":\n    endpoint:\n")
		for _, endpoint := range m.endpoints(r) {
			b.WriteString("      - " + quote(endpoint.url) + "\n")
		}
	}
	return b.String()
}

// endpoint is a URL to try. Whole says that its path is that of the API.
type endpoint struct {
	url   string
	whole bool
}

// endpoints are the URLs to try in order, for runtimes that know by themselves
// only that a registry is at https://name, and where docker.io is.
func (m Mirror) endpoints(r Registry) []endpoint {
	var endpoints []endpoint
	for _, address := range m.Addresses {
		endpoints = append(endpoints, endpoint{url: address.String()})
	}
	switch {
	case r.Server.Known:
	case r.Server.Bare():
		endpoints = append(endpoints, endpoint{url: r.Server.Origin()})
	default:
		endpoints = append(endpoints, endpoint{url: r.Server.API(), whole: true})
	}
	return endpoints
}
