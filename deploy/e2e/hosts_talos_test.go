package e2e

import (
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"github.com/siderolabs/talos/pkg/machinery/config"
	"github.com/siderolabs/talos/pkg/machinery/config/configloader"
	"github.com/siderolabs/talos/pkg/machinery/config/configpatcher"
	"github.com/siderolabs/talos/pkg/machinery/config/generate"
	talos "github.com/siderolabs/talos/pkg/machinery/config/machine"
)

// What Talos makes of both forms is asked of its own machinery: it applies them
// to a machine's configuration and validates what comes of it. What it goes by
// is read from that.
func TestTalosTakesBothForms(t *testing.T) {
	alone := map[string][]string{
		"docker.io":     {"MIRROR", "https://registry-1.docker.io"},
		"ghcr.io":       {"MIRROR"},
		"alias.lan":     {"MIRROR", "https://ghcr.io"},
		"corp.lan:5443": {"MIRROR", "https://corp.lan:5443"},
		"far.lan":       {"MIRROR", "https://deep.lan/v2/registry (whole)"},
		"plain.lan":     {"MIRROR", "http://pull.lan:8080"},
	}
	w := newSurroundings(t)
	corp, own := readText(t, w.corp), readText(t, w.ca)
	node := generatedMachine(t)
	for _, by := range w.from {
		for _, version := range []string{"1.11", "1.12"} {
			t.Run(by.name+"/"+version, func(t *testing.T) {
				w.noted(t, "Talos "+version+" | Talos' machinery", by)
				dir := t.TempDir()
				w.hosts(t, by, "talos", "--version", version, "--write", dir)
				file := filepath.Join(dir, "registry-mirrors.yaml")
				for what, patch := range map[string]string{
					"printed": w.hosts(t, by, "talos", "--version", version),
					"written": readText(t, file),
				} {
					got := patched(t, node, patch)
					if asked := talosEndpoints(got, by); !maps.EqualFunc(asked, alone, slices.Equal) {
						t.Errorf("%s: Talos asks %q\nwant %q", what, asked, alone)
					}
					wantTLS := map[string]string{"registry-1.docker.io": corp, "corp.lan:5443": corp, "deep.lan": corp}
					if by.ca {
						wantTLS[by.hosts()[0]] = own
					}
					tls := map[string]string{}
					for host, c := range got.RegistryTLSConfigs() {
						tls[host] = string(c.CA()) + "\n"
						if c.InsecureSkipVerify() {
							t.Errorf("%s: the certificate of %s is not checked", what, host)
						}
					}
					if !maps.EqualFunc(tls, wantTLS, samePEM) {
						t.Errorf("%s: Talos believes %q\nwant %q", what, tls, wantTLS)
					}
				}
				w.taken(t, by, "talos", dir, map[string]string{})
			})
		}
	}
}

// A machine's own mirrors stay, before ours: that is how Talos merges, and what
// "entrepot hosts" says.
func TestTalosKeepsAMachinesOwnMirrors(t *testing.T) {
	theirs := map[string]string{
		"1.11": "machine:\n  registries:\n    mirrors:\n      ghcr.io:\n        endpoints: [\"https://theirs.lan\"]\n      other.lan:\n        endpoints: [\"https://theirs.lan\"]\n    config:\n      theirs.lan:\n        tls:\n          insecureSkipVerify: true\n",
		"1.12": "apiVersion: v1alpha1\nkind: RegistryMirrorConfig\nname: ghcr.io\nendpoints:\n  - url: https://theirs.lan\n---\napiVersion: v1alpha1\nkind: RegistryMirrorConfig\nname: other.lan\nendpoints:\n  - url: https://theirs.lan\n---\n" +
			"apiVersion: v1alpha1\nkind: RegistryTLSConfig\nname: theirs.lan\ninsecureSkipVerify: true\n",
	}
	w := newSurroundings(t)
	by, node := w.from[0], generatedMachine(t)
	for _, version := range []string{"1.11", "1.12"} {
		before := patched(t, node, theirs[version])
		after := patched(t, before, w.hosts(t, by, "talos", "--version", version))
		asked := talosEndpoints(after, by)
		for name, want := range map[string][]string{"ghcr.io": {"https://theirs.lan", "MIRROR"}, "other.lan": {"https://theirs.lan"}, "plain.lan": {"MIRROR", "http://pull.lan:8080"}} {
			if !slices.Equal(asked[name], want) {
				t.Errorf("%s: %s is asked of %q, want %q", version, name, asked[name], want)
			}
		}
		if c, ok := after.RegistryTLSConfigs()["theirs.lan"]; !ok || !c.InsecureSkipVerify() {
			t.Errorf("%s: what they said of theirs.lan is gone", version)
		}
	}
}

// generatedMachine is the configuration of a worker. Its keys take a second.
func generatedMachine(t *testing.T) config.Provider {
	t.Helper()
	in, err := generate.NewInput("lan", "https://192.0.2.1:6443", "1.34.0")
	if err != nil {
		t.Fatal(err)
	}
	made, err := in.Config(talos.TypeWorker)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// metal is where a machine runs that has disks of its own.
type metal struct{}

func (metal) String() string        { return "metal" }
func (metal) RequiresInstall() bool { return false }
func (metal) InContainer() bool     { return false }

// patched is a machine's configuration with a patch, validated.
func patched(t *testing.T, before config.Provider, text string) config.Provider {
	t.Helper()
	patch, err := configpatcher.LoadPatch([]byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	out, err := configpatcher.Apply(configpatcher.WithConfig(before), []configpatcher.Patch{patch})
	if err != nil {
		t.Fatal(err)
	}
	content, err := out.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	after, err := configloader.NewFromBytes(content)
	if err != nil {
		t.Fatal(err)
	}
	if warnings, err := after.Validate(metal{}); err != nil || len(warnings) > 0 {
		t.Fatalf("%v, and warns: %q", err, warnings)
	}
	return after
}

// talosEndpoints are whom Talos asks, before the registry itself. MIRROR stands
// for all of entrepot's addresses.
func talosEndpoints(c config.Provider, by reached) map[string][]string {
	all := map[string][]string{}
	for name, mirror := range c.RegistryMirrorConfigs() {
		if mirror.SkipFallback() {
			all[name] = append(all[name], "and nobody else")
		}
		for _, e := range mirror.Endpoints() {
			at := e.Endpoint()
			if e.OverridePath() {
				at += " (whole)"
			}
			i := slices.IndexFunc(by.addresses, func(a string) bool { return at == a || at == a+"/v2 (whole)" })
			switch {
			case i < 0:
				all[name] = append(all[name], at)
			case i == len(by.addresses)-1: // after those before it
				all[name] = append(all[name], "MIRROR")
			case len(all[name]) != i:
				all[name] = append(all[name], "not in order: "+at)
			}
		}
	}
	return all
}
