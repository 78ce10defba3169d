package hosts

import (
	"strings"
	"testing"

	"github.com/entrepot/entrepot/config"
)

// docker.io has three names, and each runtime looks under another of them for
// who signed its certificate.
func TestWhoSignedForDockerHubStandsUnderTheNameThatIsLookedFor(t *testing.T) {
	ca := caFile(t)
	hub := upstream("docker.io", "https://registry-1.docker.io")
	hub.TLS = config.UpstreamTLS{CAFile: ca}
	m := mirrorOf(t, hub)
	tls := ":\n    tls:\n      ca_file: " + quote(ca) + "\n"
	for _, c := range []struct{ runtime, file, there, want string }{
		{"podman", "/etc/containers/certs.d/docker.io/entrepot.crt", "", "CERTIFICATE"},
		{"k3s", registriesFile, "", "configs:\n  \"docker.io\"" + tls},
		// Theirs for its server counts for docker.io too, unless it has its own.
		{"k3s", registriesFile, "configs:\n  registry-1.docker.io:\n    auth:\n      username: me\n", "registry-1.docker.io:\n" + marked("k3s", strings.TrimPrefix(tls, ":\n"))},
	} {
		files := map[string]string{}
		if c.there != "" {
			files[c.file] = c.there
		}
		p := newPlace(t, files)
		p.write(c.runtime, m, "")
		if got := p.get(c.file); !strings.Contains(got, c.want) {
			t.Errorf("%s: got\n%s\nwant\n%s", c.runtime, got, c.want)
		}
	}
}
