package hosts

import (
	"maps"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/config"
)

const buildkitd = "/etc/buildkit/buildkitd.toml"

func TestABuildkitdTOMLIsMergedInto(t *testing.T) {
	const plain = "[registry.\"mirror.lan:5000\"]\n  http = true\n"
	for _, c := range []struct{ name, there, want string }{
		{"other settings", "debug = true\n[worker.oci]\n  gc = true", "debug = true\n[worker.oci]\n  gc = true\n" +
			marked("buildkit", "[registry.\"docker.io\"]\n  mirrors = [\"mirror.lan:5000/docker.io\"]\n\n"+plain)},
		{"a table without mirrors", "[registry.\"docker.io\"]\n  # slow line\n  insecure = true\n", "[registry.\"docker.io\"]\n" +
			marked("buildkit", "  mirrors = [\"mirror.lan:5000/docker.io\"]\n") + "  # slow line\n  insecure = true\n" + marked("buildkit", plain)},
		{"mirrors of theirs, on many lines", "[registry.'docker.io']\nmirrors = [\n  \"office.lan\", # first\n]\nca=[\"/a.pem\"]\n", "[registry.'docker.io']\n" +
			marked("buildkit", "# instead of: mirrors = [\n# instead of:   \"office.lan\", # first\n# instead of: ]\n  mirrors = [\"mirror.lan:5000/docker.io\", \"office.lan\"]\n") +
			"ca=[\"/a.pem\"]\n" + marked("buildkit", plain)},
		{"entrepot's own table", "[registry.\"mirror.lan:5000\"]\nhttp = true\n", "[registry.\"mirror.lan:5000\"]\nhttp = true\n" +
			marked("buildkit", "[registry.\"docker.io\"]\n  mirrors = [\"mirror.lan:5000/docker.io\"]\n")},
		{"ours by hand", "[registry.\"docker.io\"]\nmirrors = [\"mirror.lan:5000/docker.io\"]\n" + plain, "[registry.\"docker.io\"]\nmirrors = [\"mirror.lan:5000/docker.io\"]\n" + plain},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlace(t, map[string]string{buildkitd: c.there})
			before := p.all()
			m := mirrorOf(t, upstream("docker.io"))
			p.write("buildkit", m, "")
			got := p.get(buildkitd)
			if got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
			if right, said := p.check("buildkit", m, ""); !right {
				t.Error(said)
			}
			if rest, _, err := unmark([]byte(got), "buildkit"); err != nil || string(rest) != strings.TrimSuffix(c.there, "\n")+"\n" {
				t.Errorf("%v, without ours it is\n%s", err, rest)
			}
			if err := p.remove("buildkit", m, ""); err != nil || !maps.Equal(before, p.all()) {
				t.Errorf("%v, %q, want %q", err, p.all(), before)
			}
		})
	}
}

func TestABuildkitdTOMLThatCantBeMergedIntoIsRefused(t *testing.T) {
	for there, want := range map[string]string{
		"a = \n": "line 1 is not TOML",
		"registry = {\"docker.io\" = {http = false}}\n":  "write each registry as a separate table, or add this by hand:\n    [registry.\"docker.io\"]",
		"[registry.\"mirror.lan:5000\"]\nhttp = false\n": "it has http = false for mirror.lan:5000, which is entrepot's address with true",
		"[registry.\"docker.io\"]\nmirrors = \"a\"\n":    "mirrors is not a list",
	} {
		if got := newPlace(t, map[string]string{buildkitd: there}).refused("buildkit", mirrorOf(t, upstream("docker.io")), ""); !strings.HasPrefix(got, buildkitd+": ") || !strings.Contains(got, want) {
			t.Errorf("%s\nwant\n%s", got, want)
		}
	}
}

func TestBuildKitIsToldHowEachHostIsAsked(t *testing.T) {
	ca := caFile(t)
	corp := upstream("corp.lan")
	corp.TLS.CAFile = ca
	lax := upstream("lax.lan", "https://behind.lan")
	lax.Aliases, lax.TLS.InsecureSkipVerify = []string{"alias.lan"}, true
	m, err := NewMirror([]config.Upstream{corp, lax, upstream("plain.lan", "http://plain.lan")}, Settings{CAFile: ca, Addresses: []*url.URL{
		{Scheme: "https", Host: "localhost:5000"}, {Scheme: "https", Host: "mirror.lan"}, {Scheme: "http", Host: "127.0.0.1:5000"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	p := newPlace(t, nil)
	p.write("buildkit", m, "")
	read, err := readTOML([]byte(p.get(buildkitd)))
	if err != nil {
		t.Fatal(err)
	}
	mirrors := func(name string, more ...any) []any {
		return append([]any{"localhost:5000/" + name, "mirror.lan/" + name, "127.0.0.1:5000/" + name}, more...)
	}
	want := map[string]any{"registry": map[string]any{
		"corp.lan":       map[string]any{"mirrors": mirrors("corp.lan"), "ca": []any{ca}},
		"lax.lan":        map[string]any{"mirrors": mirrors("lax.lan", "behind.lan")},
		"alias.lan":      map[string]any{"mirrors": mirrors("lax.lan", "behind.lan")},
		"plain.lan":      map[string]any{"mirrors": mirrors("plain.lan"), "http": true},
		"behind.lan":     map[string]any{"insecure": true},
		"localhost:5000": map[string]any{"http": false, "ca": []any{ca}},
		"mirror.lan":     map[string]any{"ca": []any{ca}},
		"127.0.0.1:5000": map[string]any{"http": true},
	}}
	if !sameTOML(read, want) {
		t.Errorf("got %v\nwant %v", read, want)
	}
	if right, said := p.check("buildkit", m, ""); !right {
		t.Error(said)
	}
	p.put(buildkitd, strings.Replace(p.get(buildkitd), "http = false", "http = true", 1))
	if right, said := p.check("buildkit", m, ""); right || !strings.Contains(said, "uses another scheme for localhost:5000 than https://localhost:5000") {
		t.Error(said)
	}
}

func sameTOML(a, b map[string]any) bool { return reflect.DeepEqual(a, b) }
