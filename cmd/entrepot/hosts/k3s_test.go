package hosts

import (
	"maps"
	"net/url"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/config"
)

const registriesFile = "/etc/rancher/k3s/registries.yaml"

func TestARegistriesYAMLIsMergedInto(t *testing.T) {
	const hub = "  \"docker.io\":\n    endpoint:\n      - \"http://mirror.lan:5000\"\n"
	for _, c := range []struct{ name, there, want string }{
		{"comments alone", "# nothing yet\n", "# nothing yet\n" + marked("k3s", "mirrors:\n"+hub)},
		{"a key without a value", "mirrors:\nconfigs: {}\n", "mirrors:\n" + marked("k3s", hub) + "configs: {}\n"},
		{"other registries", "---\nmirrors:\n    # office\n    quay.io: # here\n        endpoint: [a]\n", "---\nmirrors:\n" +
			marked("k3s", "    \"docker.io\":\n      endpoint:\n        - \"http://mirror.lan:5000\"\n") + "    # office\n    quay.io: # here\n        endpoint: [a]\n"},
		{"what is no mirror", "configs:\n  a.lan:\n    auth:\n      username: me\n", "configs:\n  a.lan:\n    auth:\n      username: me\n" + marked("k3s", "mirrors:\n"+hub)},
		{"mirrors of theirs", "mirrors:\n  docker.io:\n    endpoint:\n    # the office\n    - https://office.lan\n", "mirrors:\n  docker.io:\n    endpoint:\n" +
			marked("k3s", "    - \"http://mirror.lan:5000\"\n") + "    # the office\n    - https://office.lan\n"},
		{"mirrors in one line", "mirrors:\n  docker.io:\n    endpoint: [\"https://office.lan\"] # theirs\n", "mirrors:\n  docker.io:\n" +
			marked("k3s", "# instead of:     endpoint: [\"https://office.lan\"] # theirs\n    endpoint: [\"http://mirror.lan:5000\", \"https://office.lan\"] # theirs\n")},
		{"a list of none", "mirrors:\n  docker.io:\n    endpoint: []\n", "mirrors:\n  docker.io:\n" +
			marked("k3s", "# instead of:     endpoint: []\n    endpoint: [\"http://mirror.lan:5000\"]\n")},
		{"a registry without a mirror", "mirrors:\n  docker.io:\n", "mirrors:\n  docker.io:\n" + marked("k3s", "    endpoint:\n      - \"http://mirror.lan:5000\"\n")},
		{"mirrors for all", "mirrors:\n  \"*\":\n    endpoint:\n      - \"https://all.lan\"\n", "mirrors:\n" +
			marked("k3s", hub+"      - \"https://all.lan\"\n") + "  \"*\":\n    endpoint:\n      - \"https://all.lan\"\n"},
		{"ours by hand", "mirrors:\n  docker.io:\n    endpoint:\n      - http://mirror.lan:5000\n", "mirrors:\n  docker.io:\n    endpoint:\n      - http://mirror.lan:5000\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlace(t, map[string]string{registriesFile: c.there})
			before := p.all()
			m := mirrorOf(t, upstream("docker.io"))
			p.write("k3s", m, "")
			got := p.get(registriesFile)
			if got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
			if right, said := p.check("k3s", m, ""); !right {
				t.Error(said)
			}
			if rest, _, err := unmark([]byte(got), "k3s"); err != nil || string(rest) != c.there {
				t.Errorf("%v, without ours it is\n%s", err, rest)
			}
			if err := p.remove("k3s", m, ""); err != nil || !maps.Equal(before, p.all()) {
				t.Errorf("%v, %q, want %q", err, p.all(), before)
			}
		})
	}
}

func TestARegistriesYAMLThatCantBeMergedIntoIsRefused(t *testing.T) {
	for there, want := range map[string]string{
		"a: b: c\n": "it is not a YAML mapping: mapping values",
		"- a\n":     "it is not a YAML mapping",
		"{mirrors: {docker.io: {endpoint: [a]}}}\n":                                                   "write it with one key per line, or add this by hand, before what is there:\n    mirrors:\n      \"docker.io\":",
		"mirrors:\n  docker.io:\n    endpoint: [a]\n    rewrite:\n      \"^(.*)\": \"hub/$1\"\n":      "mirrors.\"docker.io\" has a rewrite, which would also change requests to entrepot; remove it, and name its mirror",
		"mirrors:\n  \"*\":\n    endpoint: [a]\n    rewrite: {a: b}\n":                                "mirrors.\"*\" has a rewrite",
		"configs:\n  mirror.lan:\n    tls:\n      ca_file: /other.pem\nmirrors:\n  docker.io: null\n": "configs.\"mirror.lan\".tls.ca_file is /other.pem, and there can be only one",
	} {
		m := mirrorOf(t, upstream("docker.io"))
		if strings.HasPrefix(there, "configs") {
			m.Addresses, m.CAFile = []*url.URL{{Scheme: "https", Host: "mirror.lan"}}, caFile(t)
		}
		p := newPlace(t, map[string]string{registriesFile: there})
		if got := p.refused("k3s", m, ""); !strings.HasPrefix(got, registriesFile+": ") || !strings.Contains(got, want) {
			t.Errorf("%s\nwant\n%s", got, want)
		}
	}
}

func TestNodesAreToldWhoSignedCertificates(t *testing.T) {
	ca := caFile(t)
	corp := upstream("corp.lan", "https://behind.lan")
	corp.TLS = config.UpstreamTLS{CAFile: ca, InsecureSkipVerify: true}
	m, err := NewMirror([]config.Upstream{corp}, Settings{CAFile: ca, Addresses: []*url.URL{{Scheme: "https", Host: "mirror.lan"}, {Scheme: "http", Host: "b.lan:5000"}}})
	if err != nil {
		t.Fatal(err)
	}
	p := newPlace(t, map[string]string{registriesFile: "configs:\n  behind.lan:\n    auth:\n      username: me\n"})
	plan := p.write("k3s", m, "")
	want := "configs:\n" + marked("k3s", "  \"mirror.lan\":\n    tls:\n      ca_file: "+quote(ca)+"\n") + "  behind.lan:\n" +
		marked("k3s", "    tls:\n      ca_file: "+quote(ca)+"\n      insecure_skip_verify: true\n") + "    auth:\n      username: me\n" +
		marked("k3s", "mirrors:\n  \"corp.lan\":\n    endpoint:\n      - \"https://mirror.lan\"\n      - \"http://b.lan:5000\"\n      - \"https://behind.lan\"\n")
	if got := p.get(registriesFile); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if !strings.Contains(strings.Join(plan.Notes, "\n"), "each node needs "+ca) {
		t.Errorf("notes are %q", plan.Notes)
	}
}
