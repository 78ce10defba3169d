package hosts

import (
	"slices"
	"strings"
)

// buildkit reads a buildkitd.toml. A mirror there is a host and a path without a
// scheme, and plain HTTP is a matter of the host's own section.
func buildkit() Runtime {
	r := Runtime{
		Name:  "buildkit",
		Place: func(m Machine) string { return m.Own("/etc/buildkit", "buildkit") },
		Down: func(Version) string {
			return "nothing where the connection is refused, 30 s a request where its machine is gone or it hangs"
		},
		Restart: "buildkitd",
	}
	r.Files = func(s Setting) (Layout, error) {
		return Layout{Files: []File{{Path: s.below("buildkitd.toml"), Edit: alone("buildkit", s.Mirror.buildkitd())}}}, nil
	}
	r.Comes = func(s Setting, _ Registry) error { return r.comesAsWritten(s) }
	return r
}

// buildkitd says of each registry which mirrors it has. For one that no path can
// name, the ?ns= that BuildKit adds has to do.
//
// The registry itself it asks at its name. One that lies elsewhere below a path
// is a second mirror, where it is the path of repositories and not of the API.
func (m Mirror) buildkitd() string {
	var b strings.Builder
	var names, plain []string
	for _, r := range m.Registries {
		names = append(names, r.Name)
		if b.Len() > 0 {
			b.WriteString("\n")
		}
		if r.Server.Base != "" {
			b.WriteString("# " + r.Name + " itself is left out: its API is below " + r.Server.Base + ", which no mirror here can say.\n")
		}
		b.WriteString("[registry." + quote(r.Name) + "]\n")
		var mirrors []string
		for _, address := range m.Addresses {
			mirror := address.Host
			if r.Prefix != "" {
				mirror += "/" + r.Prefix
			}
			mirrors = append(mirrors, quote(mirror))
		}
		if r.Server.Base == "" && r.Server.Prefix != "" {
			mirrors = append(mirrors, quote(r.Server.Host+"/"+r.Server.Place.Prefix))
			if r.Server.Scheme == "http" {
				plain = append(plain, r.Server.Host)
			}
		}
		b.WriteString("  mirrors = [" + strings.Join(mirrors, ", ") + "]\n")
		if r.Server.Scheme == "http" && r.Server.Host == r.Name {
			b.WriteString("  http = true\n")
		}
	}
	for _, address := range m.Addresses {
		if address.Scheme == "http" {
			plain = append(plain, address.Host)
		}
	}
	slices.Sort(plain)
	for _, host := range slices.Compact(plain) {
		if !slices.Contains(names, host) { // else it has its section
			b.WriteString("\n[registry." + quote(host) + "]\n")
			b.WriteString("  http = true\n")
		}
	}
	return b.String()
}
