package hosts

import (
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/config"
)

func TestWhatWasThereIsGivenBack(t *testing.T) {
	hub := mirrorOf(t, upstream("docker.io"), upstream("ghcr.io"))
	for name, files := range map[string]map[string]string{
		"nothing": {},
		"files of theirs": {
			"/etc/containerd/certs.d/ghcr.io/hosts.toml": "# mine\nserver = \"https://ghcr.io\"",
			"/etc/containerd/config.toml":                "version = 2\n",
			"/etc/docker/daemon.json":                    "{\"log-level\": \"debug\"}",
			"/etc/docker/certs.d/ghcr.io/ca.crt":         "x",
		},
		"empty files": {"/etc/containerd/certs.d/ghcr.io/hosts.toml": "", "/etc/docker/daemon.json": "", "/etc/homebrew/brew.env": "\n"},
	} {
		for _, runtime := range Names() {
			if r, _ := Find(runtime); r.Place(Machine{Root: "/"}) == "." {
				continue // its files are for other machines
			}
			t.Run(name+", "+runtime, func(t *testing.T) {
				p := newPlace(t, files)
				before := p.all()
				p.write(runtime, hub, "")
				if maps.Equal(before, p.all()) {
					t.Fatal("nothing is written")
				}
				if err := p.remove(runtime, hub, ""); err != nil || !maps.Equal(before, p.all()) {
					t.Errorf("%v, %q, want %q", err, p.all(), before)
				}
			})
		}
	}
}

func TestAFileKeepsItsModeAndALinkStaysALink(t *testing.T) {
	p := newPlace(t, map[string]string{"/srv/daemon.json": "{}"})
	if err := os.MkdirAll(p.System("/etc/docker"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../srv/daemon.json", p.System("/etc/docker/daemon.json")); err != nil {
		t.Fatal(err)
	}
	before := p.all()
	m := mirrorOf(t, upstream("docker.io"))
	p.write("docker", m, "28")
	if got := p.get("/srv/daemon.json"); !strings.Contains(got, "mirror.lan") {
		t.Errorf("the file behind the link is %s", got)
	}
	after := p.all()
	if after["etc/docker/daemon.json"] != before["etc/docker/daemon.json"] || !strings.HasPrefix(after["srv/daemon.json"], "-rw-r----- ") {
		t.Errorf("link and mode are now %q", after)
	}
	if err := p.remove("docker", m, "28"); err != nil || !maps.Equal(before, p.all()) {
		t.Errorf("%v, %q, want %q", err, p.all(), before)
	}
}

func TestALinkToNothingIsRefused(t *testing.T) {
	p := newPlace(t, nil)
	if err := os.MkdirAll(p.System("/etc/docker"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("gone", p.System("/etc/docker/daemon.json")); err != nil {
		t.Fatal(err)
	}
	if got := p.refused("docker", mirrorOf(t, upstream("docker.io")), "28"); !strings.Contains(got, "/etc/docker/daemon.json: it is a link to a file that does not exist") {
		t.Error(got)
	}
}

func TestWhatSomebodyEditsLaterStays(t *testing.T) {
	m := mirrorOf(t, upstream("docker.io"))
	const path = "/etc/containerd/certs.d/docker.io/hosts.toml"
	t.Run("outside of the marks", func(t *testing.T) {
		p := newPlace(t, nil)
		p.write("containerd", m, "2.2")
		const added = "\n[host.\"https://office.lan\"]\n  capabilities = [\"pull\"]\n"
		p.put(path, p.get(path)+added)
		p.write("containerd", m, "2.2")
		if got := p.get(path); !strings.Contains(got, added) || strings.Index(got, "mirror.lan") > strings.Index(got, "office.lan") {
			t.Errorf("written again it is\n%s", got)
		}
		p.put(path, p.get(path)+"# and more\n")
		if err := p.remove("containerd", m, "2.2"); err != nil || p.get(path) != added+"# and more\n" {
			t.Errorf("%v, what is left is\n%s", err, p.get(path))
		}
	})
	t.Run("between the marks it is refused", func(t *testing.T) {
		p := newPlace(t, nil)
		p.write("containerd", m, "2.2")
		edited := strings.Replace(p.get(path), "1s", "2s", 1)
		p.put(path, edited)
		if got := p.refused("containerd", m, "2.2"); !strings.Contains(got, path+": what stands between the marks of entrepot above line 7 has been edited") {
			t.Error(got)
		}
		if err := p.remove("containerd", m, "2.2"); err == nil || p.get(path) != edited {
			t.Errorf("%v, and it is\n%s", err, p.get(path))
		}
		p.put(path, strings.Replace(edited, "2s", "1s", 1))
		if err := p.remove("containerd", m, "2.2"); err != nil || len(p.all()) != 1 {
			t.Errorf("once mended: %v, left are %q", err, p.all())
		}
	})
	t.Run("a file that they take away stays away", func(t *testing.T) {
		p := newPlace(t, nil)
		p.write("containerd", m, "2.2")
		if err := os.Remove(p.System(path)); err != nil {
			t.Fatal(err)
		}
		if err := p.remove("containerd", m, "2.2"); err != nil || len(p.all()) != 1 {
			t.Errorf("%v, left are %q", err, p.all())
		}
	})
	t.Run("in JSON", func(t *testing.T) {
		p := newPlace(t, map[string]string{"/etc/docker/daemon.json": "{\n  \"debug\": true\n}\n"})
		p.write("docker", m, "28")
		edited := strings.Replace(p.get("/etc/docker/daemon.json"), "true", "false", 1)
		p.put("/etc/docker/daemon.json", edited)
		p.write("docker", m, "28")
		if got := p.get("/etc/docker/daemon.json"); got != edited {
			t.Errorf("written again it is\n%s", got)
		}
		p.put("/etc/docker/daemon.json", strings.Replace(edited, "false", "null", 1))
		if err := p.remove("docker", m, "28"); err != nil || p.get("/etc/docker/daemon.json") != "{\n  \"debug\": null\n}\n" {
			t.Errorf("%v, what is left is\n%s", err, p.get("/etc/docker/daemon.json"))
		}
	})
}

func TestALostRecordIsMadeUpForByTheMarks(t *testing.T) {
	m := mirrorOf(t, upstream("docker.io"))
	const theirs = "[host.\"https://office.lan\"]\n"
	p := newPlace(t, map[string]string{"/etc/containerd/certs.d/docker.io/hosts.toml": theirs})
	before := p.all()
	p.write("containerd", m, "2.2")
	lose := func() {
		for _, name := range []string{"/etc/containerd/certs.d/entrepot-hosts.json", "/etc/containerd/certs.d/docker.io/hosts.toml.entrepot-backup"} {
			if err := os.Remove(p.System(name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	lose()
	after := p.get("/etc/containerd/certs.d/docker.io/hosts.toml")
	p.write("containerd", m, "2.2")
	if got := p.get("/etc/containerd/certs.d/docker.io/hosts.toml"); got != after {
		t.Errorf("written again it is\n%s", got)
	}
	lose()
	if err := p.remove("containerd", m, "2.2"); err != nil || !maps.Equal(before, p.all()) {
		t.Errorf("%v, %q, want %q", err, p.all(), before)
	}
}

func TestAnUpstreamThatIsGoneLosesItsFile(t *testing.T) {
	p := newPlace(t, map[string]string{"/etc/containerd/certs.d/quay.io/hosts.toml": "# theirs\n"})
	p.write("containerd", mirrorOf(t, upstream("docker.io"), upstream("quay.io"), upstream("ghcr.io")), "2.2")
	p.write("containerd", mirrorOf(t, upstream("docker.io")), "2.2")
	all := p.all()
	for _, gone := range []string{"etc/containerd/certs.d/ghcr.io", "etc/containerd/certs.d/quay.io/hosts.toml.entrepot-backup"} {
		if _, there := all[gone]; there {
			t.Errorf("%s is left", gone)
		}
	}
	if got := p.get("/etc/containerd/certs.d/quay.io/hosts.toml"); got != "# theirs\n" {
		t.Errorf("their file is now\n%s", got)
	}
}

func TestWhatOlderProgramsMadeIsKnownAsOurs(t *testing.T) {
	m := mirrorOf(t, upstream("docker.io"))
	const path, old = "/etc/containerd/certs.d/docker.io/hosts.toml", "# Made by \"entrepot hosts containerd\".\nserver = \"https://registry-1.docker.io\"\n\n" +
		"[host.\"http://old.lan:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
	p := newPlace(t, map[string]string{path: old})
	p.write("containerd", m, "2.2")
	if got := p.get(path); strings.Contains(got, "old.lan") || !strings.Contains(got, "mirror.lan") {
		t.Errorf("it is now\n%s", got)
	}
	p = newPlace(t, map[string]string{path: old + "  ca = \"mine.pem\"\n"})
	if got := p.refused("containerd", m, "2.2"); !strings.Contains(got, "line 6 was added by somebody else") {
		t.Error(got)
	}
}

func TestTheRealServerOfARegistryIsItsLastEndpoint(t *testing.T) {
	private := config.UpstreamTLS{CAFile: "/ca.pem", InsecureSkipVerify: true}
	for _, c := range []struct {
		name     string
		upstream config.Upstream
		of       string
		want     Server
	}{
		{"as every runtime knows it", upstream("a.b"), "a.b", Server{Place: config.Place{Scheme: "https", Host: "a.b"}, Known: true}},
		{"docker.io", upstream("docker.io"), "docker.io", Server{Place: config.Place{Scheme: "https", Host: "registry-1.docker.io"}, Known: true}},
		{"docker.io in the office", upstream("docker.io", "https://hub.corp"), "docker.io", Server{Place: config.Place{Scheme: "https", Host: "hub.corp"}}},
		{"plain HTTP, where a CA says nothing", config.Upstream{Name: "a.b", Endpoints: []string{"http://a.b"}, TLS: private}, "a.b", Server{Place: config.Place{Scheme: "http", Host: "a.b"}}},
		{"another mirror before it", upstream("a.b", "http://parent:5000", "https://c.d"), "a.b", Server{Place: config.Place{Scheme: "https", Host: "c.d"}}},
		{"a mirror alone", upstream("a.b", "http://parent:5000/v2/a.b"), "a.b", Server{Place: config.Place{Scheme: "http", Host: "parent:5000", Prefix: "a.b"}}},
		{"a base", upstream("a.b", "https://a.b/base"), "a.b", Server{Place: config.Place{Scheme: "https", Host: "a.b", Base: "/base"}}},
		{"an alias", upstream("a.b"), "c.d", Server{Place: config.Place{Scheme: "https", Host: "a.b"}}},
		{"a certificate of its own", config.Upstream{Name: "a.b", Endpoints: []string{"https://a.b"}, TLS: private}, "a.b", Server{Place: config.Place{Scheme: "https", Host: "a.b"}, CAFile: "/ca.pem", Insecure: true}},
	} {
		if got := serverOf(c.upstream, c.of); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestAMirrorKnowsItsRegistries(t *testing.T) {
	hub := upstream("docker.io")
	hub.Aliases, hub.Hosts = []string{"index.docker.io", "registry-1.docker.io", "hub.corp"}, []string{"hub.mirror.lan"}
	m := mirrorOf(t, hub, upstream("corp.example.com:5443"), upstream("[fd00::1]:5000"), upstream("a.b:1"), upstream("a.b_1"))
	var got []string
	for _, r := range m.Registries {
		got = append(got, r.Name+" "+r.Prefix)
	}
	want := "docker.io docker.io, hub.corp docker.io, corp.example.com:5443 corp.example.com_5443, [fd00::1]:5000 , a.b:1 , a.b_1 a.b_1"
	if strings.Join(got, ", ") != want {
		t.Errorf("got %s\nwant %s", strings.Join(got, ", "), want)
	}
}

func TestAnAddressThatIsAVirtualHostIsRefused(t *testing.T) {
	ghcr := upstream("ghcr.io")
	ghcr.Hosts = []string{"ghcr.mirror.lan", "192.0.2.7"}
	for _, host := range []string{"GHCR.mirror.lan:443", "ghcr.mirror.lan.:5000", "192.0.2.7:5000"} {
		_, err := NewMirror([]config.Upstream{upstream("docker.io"), ghcr}, Settings{Addresses: []*url.URL{{Scheme: "http", Host: "mirror.lan"}, {Scheme: "https", Host: host}}})
		if err == nil || !strings.Contains(err.Error(), "is a virtual host of ghcr.io") {
			t.Errorf("%s: got %v", host, err)
		}
	}
}

func TestACertificateThatIsNoneIsRefused(t *testing.T) {
	p := newPlace(t, map[string]string{"/ca.pem": "nothing\n"})
	corp := upstream("corp.lan")
	corp.TLS.CAFile = p.System("/ca.pem")
	gone := upstream("gone.lan")
	gone.TLS.CAFile = p.System("/gone.pem")
	got := p.refused("containerd", mirrorOf(t, corp, gone), "2.2")
	for _, want := range []string{"certificates of corp.lan (its tls.ca_file): /ca.pem contains no certificate", "certificates of gone.lan (its tls.ca_file): open /gone.pem"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in %s", want, got)
		}
	}
}

func TestAUserWithoutRootWritesWhereRootlessRuntimesLook(t *testing.T) {
	m := Machine{Rootless: true, Home: "/home/a", Config: "/home/a/.config"}
	for runtime, want := range map[string]string{
		"containerd": "/home/a/.config/containerd/certs.d", "docker": "/home/a/.config/docker", "podman": "/home/a/.config/containers/registries.conf.d",
		"buildkit": "/home/a/.config/buildkit", "homebrew": "/home/a/.homebrew",
	} {
		r, _ := Find(runtime)
		if got := filepath.ToSlash(r.Place(m)); got != want {
			t.Errorf("%s: %s, want %s", runtime, got, want)
		}
	}
}

func TestAVersionIsFoundInWhatAProgramPrints(t *testing.T) {
	for said, want := range map[string]Version{
		"containerd github.com/containerd/containerd/v2 v2.2.1 abcdef":                {2, 2, true},
		"containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u2": {1, 6, true},
		"Docker version 29.1.3, build f52814d":                                        {29, 1, true},
		"Docker version 20.10.24+dfsg1, build 5d6db84":                                {20, 10, true},
		"it is broken": {},
	} {
		if got := versionIn(said); got != want {
			t.Errorf("%s: got %+v, want %+v", said, got, want)
		}
	}
}

func TestADiffShowsWhatWouldBeWritten(t *testing.T) {
	p := newPlace(t, map[string]string{"/etc/docker/daemon.json": "{\n  \"debug\": true\n}\n"})
	r, s := p.setting("docker", mirrorOf(t, upstream("docker.io")), "28")
	plan, err := r.PlanWrite(s)
	if err != nil || len(plan.Steps) != 1 {
		t.Fatal(err)
	}
	path := p.System("/etc/docker/daemon.json")
	want := "--- " + path + "\n+++ " + path + "\n@@ -1,3 +1,4 @@\n {\n+  \"registry-mirrors\": [\"http://mirror.lan:5000\"],\n   \"debug\": true\n }\n"
	if got := plan.Steps[0].Diff(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestTwoRuntimesThatShareAFileDoNotTakeItFromEachOther(t *testing.T) {
	p := newPlace(t, nil)
	m := mirrorOf(t, upstream("docker.io"))
	p.write("docker", m, "29")
	// containerd looks into Docker's folder as well, and nothing there is anybody's.
	p.write("containerd", m, "2.2")
	if got := p.get("/etc/containerd/certs.d/docker.io/hosts.toml"); strings.Contains(got, "hosts docker") {
		t.Errorf("it is\n%s", got)
	}
	before := p.all()
	r, _ := Find("containerd")
	s, err := r.NewSetting(m, Version{Major: 2, Minor: 2}, p.Machine, p.System("/etc/docker/certs.d"))
	if err != nil {
		t.Fatal(err)
	}
	plan, err := r.PlanWrite(s)
	if err != nil || plan.Changes() {
		t.Errorf("%v, %+v", err, plan.Steps)
	}
	if err := plan.Apply(); err != nil || !maps.Equal(before, p.all()) {
		t.Errorf("%v, %q", err, p.all())
	}
}

func TestAByteOrderMarkIsNamed(t *testing.T) {
	for runtime, file := range map[string]string{"docker": "/etc/docker/daemon.json", "buildkit": "/etc/buildkit/buildkitd.toml"} {
		p := newPlace(t, map[string]string{file: "\ufeff{}\n"})
		if got := p.refused(runtime, mirrorOf(t, upstream("docker.io")), ""); got != file+": it begins with a byte order mark; save it as UTF-8 without one" {
			t.Error(got)
		}
	}
}

func TestAUserRestartsServicesOfTheirOwn(t *testing.T) {
	for rootless, want := range map[bool]string{false: "; after a change of daemon.json: systemctl reload docker\n", true: "; after a change of daemon.json: systemctl --user reload docker\n"} {
		p := newPlace(t, nil)
		p.Rootless, p.Home, p.Config = rootless, p.System("/home"), p.System("/home/.config")
		m := mirrorOf(t, upstream("docker.io"))
		p.write("docker", m, "")
		if _, said := p.check("docker", m, ""); !strings.HasSuffix(said, want) {
			t.Errorf("%s\nwant %s", said, want)
		}
	}
}
