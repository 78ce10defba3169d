package hosts

import "strings"

// registriesConf is what CRI-O, Podman and skopeo share: a drop-in of
// containers-registries.conf(5), version 2.
func registriesConf(name string) Runtime {
	r := Runtime{
		Name:   name,
		Shares: "podman",
		Place: func(m Machine) string {
			return m.Own("/etc/containers/registries.conf.d", "containers/registries.conf.d")
		},
		Down: func(Version) string {
			return "nothing where the connection is refused, 120 s a manifest where its machine is gone or it hangs"
		},
		Restart: "nothing",
	}
	if name == "crio" {
		r.Restart = "systemctl reload crio"
	}
	r.Files = func(s Setting) (Layout, error) {
		return Layout{Files: []File{{Path: s.below("entrepot.conf"), Edit: alone("podman", s.Mirror.registriesConf())}}}, nil
	}
	r.Comes = func(s Setting, _ Registry) error { return r.comesAsWritten(s) }
	return r
}

// registriesConf has the registry's name in the mirror's location: these send no
// ?ns=.
func (m Mirror) registriesConf() string {
	var b strings.Builder
	for _, r := range m.Registries {
		if b.Len() > 0 {
			b.WriteString("\n")
		}
		var mirrors []string
		plain := map[string]bool{}
		for _, address := range m.Addresses {
			if r.Prefix != "" {
				mirrors = append(mirrors, address.Host+"/"+r.Prefix)
				plain[address.Host+"/"+r.Prefix] = address.Scheme == "http"
			}
		}
		if r.Prefix == "" {
			for _, address := range m.AtVirtualHost(r) {
				mirrors = append(mirrors, address.Host)
				plain[address.Host] = address.Scheme == "http"
			}
		}
		if len(mirrors) == 0 {
			b.WriteString("# " + r.Name + " is left out: no image name can hold it. Give it an alias.\n")
			continue
		}
		location, insecure := r.Name, false
		switch {
		case r.Server.Known: // docker.io is translated behind the location, not in it
		case r.Name == dockerHub && r.Server.Place.String() == "https://"+dockerHubServer:
		case r.Server.Base != "" || strings.Contains(r.Server.Place.Prefix, ":"):
			b.WriteString("# " + r.Name + " itself is left out: no location can be at " + r.Server.API() + ".\n")
		case r.Server.Place.Prefix != "":
			location, insecure = r.Server.Host+"/"+r.Server.Place.Prefix, r.Server.Scheme == "http"
		default:
			location, insecure = r.Server.Host, r.Server.Scheme == "http"
		}
		b.WriteString("[[registry]]\n")
		b.WriteString("prefix = " + quote(r.Name) + "\n")
		b.WriteString("location = " + quote(location) + "\n")
		if insecure || r.Server.Insecure {
			b.WriteString("insecure = true\n")
		}
		for _, mirror := range mirrors {
			b.WriteString("\n[[registry.mirror]]\n")
			b.WriteString("location = " + quote(mirror) + "\n")
			if plain[mirror] {
				b.WriteString("insecure = true\n")
			}
		}
	}
	return b.String()
}
