package hosts

import (
	"maps"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/config"
)

const (
	mainConf = "/etc/containers/registries.conf"
	dropsIn  = "/etc/containers/registries.conf.d/"
	ourConf  = dropsIn + "entrepot.conf"
	hubEntry = "[[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\n\n[[registry.mirror]]\nlocation = \"mirror.lan:5000/docker.io\"\ninsecure = true\n"
	ourHub   = "[[registry.mirror]]\nlocation = \"mirror.lan:5000/docker.io\"\ninsecure = true\n"
)

func TestAnEntryOfTheirsKeepsItsMeaning(t *testing.T) {
	for _, c := range []struct {
		name        string
		there, want map[string]string
		check       string // what --check says of docker.io
	}{
		{"nothing of it", map[string]string{mainConf: "unqualified-search-registries = [\"docker.io\"]\n"}, map[string]string{ourConf: marked("podman", hubEntry)}, "docker.io: comes here"},
		{
			"blocked", map[string]string{mainConf: "[[registry]]\nlocation = \"docker.io\"\nblocked = true\n"},
			map[string]string{}, "docker.io: it is blocked in " + mainConf,
		},
		{
			"with mirrors, by digest only, in a drop-in that is read later",
			map[string]string{dropsIn + "zz.conf": "# office\n[[registry]]\nprefix = \"docker.io/\"\nlocation = \"docker.io\"\nmirror-by-digest-only = true\n\n# ours\n[[registry.mirror]]\nlocation = \"office.lan/hub\"\n\n[[registry]]\nlocation = \"x.lan\"\n[[registry.mirror]]\nlocation = \"y.lan\"\n"},
			map[string]string{dropsIn + "zz.conf": "# office\n[[registry]]\nprefix = \"docker.io/\"\nlocation = \"docker.io\"\nmirror-by-digest-only = true\n\n" + marked("podman", ourHub) +
				"# ours\n[[registry.mirror]]\nlocation = \"office.lan/hub\"\n\n[[registry]]\nlocation = \"x.lan\"\n[[registry.mirror]]\nlocation = \"y.lan\"\n"},
			"docker.io: DOES NOT COME HERE: " + dropsIn + "zz.conf has mirror-by-digest-only",
		},
		{
			"before another", map[string]string{mainConf: "[[registry]]\nlocation = \"docker.io\"\ninsecure = true\n\n# next\n[[registry]]\nlocation = \"x.lan\""},
			map[string]string{mainConf: "[[registry]]\nlocation = \"docker.io\"\ninsecure = true\n\n" + marked("podman", ourHub) + "# next\n[[registry]]\nlocation = \"x.lan\"\n"}, "docker.io: comes here",
		},
		{
			"that points here by hand", map[string]string{mainConf: "[[registry]]\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \"mirror.lan:5000/docker.io\"\ninsecure = true\n"},
			map[string]string{}, "docker.io: comes here",
		},
		{
			"blocked, for all names below one", map[string]string{mainConf: "[[registry]]\nprefix = \"*.io\"\nblocked = true\n"},
			map[string]string{}, "docker.io: it is blocked in " + mainConf,
		},
		{
			"for all names below one", map[string]string{mainConf: "[[registry]]\nprefix = \"*.io\"\ninsecure = true\nextra = 1\n[[registry.mirror]]\nlocation = \"office.lan/io\"\npull-from-mirror = \"tag-only\"\n"},
			map[string]string{ourConf: marked("podman", "[[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\nextra = 1\ninsecure = true\n\n"+ourHub+"\n[[registry.mirror]]\nlocation = \"office.lan/io\"\npull-from-mirror = 'tag-only'\n")},
			"docker.io: comes here",
		},
		{
			"of a package", map[string]string{"/usr/share/containers/registries.conf": "[[registry]]\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \"distribution.lan\"\n"},
			map[string]string{ourConf: marked("podman", "[[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\n\n"+ourHub+"\n[[registry.mirror]]\nlocation = \"distribution.lan\"\n")},
			"docker.io: comes here",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlace(t, c.there)
			before := p.all()
			m := mirrorOf(t, upstream("docker.io"))
			p.write("podman", m, "")
			want := maps.Clone(c.there)
			maps.Copy(want, c.want)
			for path, text := range want {
				if got := p.get(path); got != text {
					t.Errorf("%s is\n%s\nwant\n%s", path, got, text)
				}
			}
			if _, said := p.check("skopeo", m, ""); !strings.HasPrefix(said, c.check) {
				t.Errorf("%s\nwant\n%s", said, c.check)
			}
			if err := p.remove("crio", m, ""); err != nil || !maps.Equal(before, p.all()) {
				t.Errorf("%v, %q, want %q", err, p.all(), before)
			}
		})
	}
}

func TestWhatPodmanCantTakeIsRefused(t *testing.T) {
	hub := mirrorOf(t, upstream("docker.io"))
	for _, c := range []struct {
		name, path, content string
		want                []string
	}{
		{"no TOML", mainConf, "[[registry\n", []string{mainConf + ": line 1 is not TOML"}},
		{"tables in one line", mainConf, "registry = [{location = \"docker.io\"}]\n", []string{mainConf + ": the file is written in a form", "location = \"mirror.lan:5000/docker.io\""}},
		{"mirrors in one line", mainConf, "[[registry]]\nlocation = \"docker.io\"\nmirror = [{location = \"a.lan\"}]\n", []string{"add this to the entry for docker.io by hand, before its mirrors", "[[registry.mirror]]"}},
		{"the older form", mainConf, "[registries.block]\nregistries = [\"docker.io\"]\n", []string{mainConf + ": [registries.block] is of the older form", "blocked = true"}},
		{"a package's drop-in that is read later", "/usr/share/containers/registries.conf.d/zz.conf", "[[registry]]\nlocation = \"docker.io\"\n", []string{"zz.conf: it has an entry for docker.io, and is read after entrepot.conf", ourHub[:20]}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := newPlace(t, map[string]string{c.path: c.content}).refused("podman", hub, "")
			for _, want := range c.want {
				if !strings.Contains(got, want) {
					t.Errorf("%q is not in %s", want, got)
				}
			}
		})
	}
	t.Run("a folder that nothing reads", func(t *testing.T) {
		r, _ := Find("podman")
		dir := filepath.Join(t.TempDir(), "containers")
		s, err := r.NewSetting(hub, Version{}, newPlace(t, nil).Machine, dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.PlanWrite(s); err == nil || !strings.Contains(err.Error(), "no client reads a drop-in there; name the folder registries.conf.d: --write "+filepath.Join(dir, "registries.conf.d")) {
			t.Errorf("got %v", err)
		}
	})
}

func TestAnAddressThatNoImageNameCanHold(t *testing.T) {
	six := &url.URL{Scheme: "http", Host: "[fd00::1]:5000"}
	m, err := NewMirror([]config.Upstream{upstream("docker.io")}, Settings{Addresses: []*url.URL{six, {Scheme: "http", Host: "mirror.lan:5000"}}})
	if err != nil {
		t.Fatal(err)
	}
	p := newPlace(t, nil)
	if plan := p.write("podman", m, ""); len(plan.Notes) != 1 || !strings.Contains(plan.Notes[0], "IPv6") {
		t.Errorf("notes are %q", plan.Notes)
	}
	if got := p.get(ourConf); got != marked("podman", hubEntry) {
		t.Errorf("got\n%s", got)
	}
	m.Addresses = m.Addresses[:1]
	if got := newPlace(t, nil).refused("podman", m, ""); !strings.Contains(got, "give another address with --address") {
		t.Error(got)
	}
}

func TestAUserWithARegistriesConfOfTheirOwnReadsOurs(t *testing.T) {
	m := mirrorOf(t, upstream("docker.io"))
	const own = "/home/.config/containers/registries.conf"
	t.Run("root's", func(t *testing.T) {
		p := newPlace(t, map[string]string{own: "unqualified-search-registries = []\n"})
		before := p.all()
		p.write("podman", m, "")
		for _, path := range []string{ourConf, own + ".d/entrepot.conf"} {
			if got := p.get(path); got != marked("podman", hubEntry) {
				t.Errorf("%s is\n%s", path, got)
			}
		}
		if err := p.remove("podman", m, ""); err != nil || !maps.Equal(before, p.all()) {
			t.Errorf("%v, %q, want %q", err, p.all(), before)
		}
	})
	t.Run("of a user without root, beside what the system says", func(t *testing.T) {
		p := newPlace(t, map[string]string{mainConf: "[[registry]]\nlocation = \"docker.io\"\ninsecure = true\n"})
		p.Rootless = true
		p.write("podman", m, "")
		if got := p.get(own + ".d/entrepot.conf"); !strings.Contains(got, "location = \"docker.io\"\ninsecure = true\n") {
			t.Errorf("got\n%s", got)
		}
		if got := p.get(mainConf); strings.Contains(got, "mirror") {
			t.Errorf("the system's is now\n%s", got)
		}
	})
	t.Run("where XDG says that it is elsewhere, which Podman before 6 does not know", func(t *testing.T) {
		p := newPlace(t, nil)
		p.Rootless, p.ConfigSet, p.Config = true, true, p.System("/xdg")
		p.write("podman", m, "")
		for _, path := range []string{"/xdg/containers/registries.conf.d/entrepot.conf", own + ".d/entrepot.conf"} {
			if got := p.get(path); got != marked("podman", hubEntry) {
				t.Errorf("%s is\n%s", path, got)
			}
		}
	})
}

func TestCertificatesGoWherePodmanLooksForThem(t *testing.T) {
	ca := caFile(t)
	corp := upstream("corp.lan:5443")
	corp.TLS.CAFile = ca
	m, err := NewMirror([]config.Upstream{corp}, Settings{CAFile: ca, Addresses: []*url.URL{{Scheme: "https", Host: "mirror.lan"}}})
	if err != nil {
		t.Fatal(err)
	}
	p := newPlace(t, map[string]string{"/etc/docker/certs.d/corp.lan:5443/theirs.crt": "x"})
	before := p.all()
	p.write("podman", m, "")
	p.get("/etc/containers/certs.d/mirror.lan/entrepot.crt")
	p.get("/etc/docker/certs.d/corp.lan:5443/entrepot.crt") // for once there is a folder before it, theirs is not looked at
	if err := p.remove("podman", m, ""); err != nil || !maps.Equal(before, p.all()) {
		t.Errorf("%v, %q, want %q", err, p.all(), before)
	}
	p.Rootless = true
	plan := p.write("podman", m, "")
	if !strings.Contains(strings.Join(plan.Notes, "\n"), "/etc/docker/certs.d/corp.lan:5443 counts for corp.lan:5443: the CA of its certificate has to be there") {
		t.Errorf("notes are %q", plan.Notes)
	}
	p.get("/home/.config/containers/certs.d/mirror.lan/entrepot.crt")
}
