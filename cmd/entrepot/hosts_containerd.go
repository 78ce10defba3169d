package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/entrepot/entrepot/config"
)

// containerdFiles makes a hosts.toml for each registry. containerd itself adds
// ?ns= to what it asks of a mirror, so one URL serves all.
//
// A registry with a port is looked for as host_port_ and then as host:port;
// the latter is the form that everybody knows.
func containerdFiles(m mirrors) ([]configFile, error) {
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
		capabilities := `["pull", "resolve"]`
		if m.referrers {
			capabilities = `["pull", "resolve", "referrers"]`
		}
		files = append(files, configFile{
			dir:  "/etc/containerd/certs.d",
			path: r.name + "/hosts.toml",
			content: madeBy("containerd") +
				server +
				"\n" +
				"[host." + quote(m.address.String()) + "]\n" +
				"  capabilities = " + capabilities + "\n",
		})
	}
	return files, nil
}

// knowsReferrers says whether a version of containerd has the capability
// "referrers". One that has not ignores a whole file that names it (W59).
func knowsReferrers(version string) (bool, error) {
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	if len(parts) >= 2 {
		major, err := strconv.Atoi(parts[0])
		minor, minorErr := strconv.Atoi(parts[1])
		if err == nil && minorErr == nil {
			return major > 2 || major == 2 && minor >= 2, nil
		}
	}
	return false, usageError(fmt.Sprintf("--containerd-version %q is not a version such as 2.2", version))
}
