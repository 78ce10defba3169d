package main

import (
	"errors"

	"github.com/entrepot/entrepot/config"
)

// containerdFiles makes a hosts.toml for each registry. containerd itself adds
// ?ns= to what it asks of a mirror, so one URL serves all.
//
// Before 2.2 it ignores a whole file that names the capability "referrers", and
// from 2.2 on it asks a mirror without it for none (W59): so without a version
// it is left out, because an old containerd would go round the mirror in silence.
func containerdFiles(m mirrors) ([]configFile, error) {
	return m.hostsTOML("containerd", "/etc/containerd/certs.d", "", m.version.atLeast(2, 2)), nil
}

const containerdUntold = `without --version these files grant no "referrers": tell it for containerd 2.2 and later, or they ask the registry itself for signatures and attestations`

// containerdVersion wants a minor version: 2.1 and 2.2 differ.
func containerdVersion(told string) (version, error) {
	v, ok := parseVersion(told)
	if !ok || v.minor == latest {
		return version{}, errors.New("is not a version such as 2.2")
	}
	return v, nil
}

// hostsTOML makes a hosts.toml for each registry, below a folder that the
// runtime looks into.
//
// A registry with a port is looked for as host_port_ and then as host:port;
// the latter is the form that everybody knows.
func (m mirrors) hostsTOML(runtime, dir, below string, referrers bool) []configFile {
	capabilities := `["pull", "resolve"]`
	if referrers {
		capabilities = `["pull", "resolve", "referrers"]`
	}
	var files []configFile
	for _, r := range m.registries() {
		server := "server = " + quote("https://"+r.name) + "\n"
		switch {
		case r.server == config.Place{}:
		case r.server.Bare():
			server = "server = " + quote(r.server.Origin()) + "\n"
		default: // or else it adds a /v2 of its own
			server = "server = " + quote(r.server.API()) + "\noverride_path = true\n"
		}
		files = append(files, configFile{
			dir:  dir,
			path: below + r.name + "/hosts.toml",
			content: madeBy(runtime) +
				server +
				"\n" +
				"[host." + quote(m.address.String()) + "]\n" +
				"  capabilities = " + capabilities + "\n",
		})
	}
	return files
}
