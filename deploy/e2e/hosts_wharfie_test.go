package e2e

import (
	"maps"
	"path/filepath"
	"reflect"
	"testing"

	wharfie "github.com/rancher/wharfie/pkg/registries"
)

// What k3s and rke2 make of registries.yaml is asked of wharfie, by which both
// read it. What they write for containerd from it they write by the same type.
func TestRegistriesYAMLMeansWhatItShould(t *testing.T) {
	// To wharfie the host of docker.io is index.docker.io.
	alone := map[string][]string{
		"docker.io/library/a:1": {"MIRROR/v2/library/a/manifests/1?ns=docker.io", "https://index.docker.io/v2/library/a/manifests/1"},
		"ghcr.io/a:1":           {"MIRROR/v2/a/manifests/1?ns=ghcr.io", "https://ghcr.io/v2/a/manifests/1"},
		"alias.lan/a:1":         {"MIRROR/v2/a/manifests/1?ns=alias.lan", "https://ghcr.io/v2/a/manifests/1?ns=alias.lan"},
		"corp.lan:5443/a:1":     {"MIRROR/v2/a/manifests/1?ns=corp.lan%3A5443", "https://corp.lan:5443/v2/a/manifests/1"},
		"far.lan/a:1":           {"MIRROR/v2/a/manifests/1?ns=far.lan", "https://deep.lan/v2/registry/a/manifests/1?ns=far.lan"},
		"plain.lan/a:1":         {"MIRROR/v2/a/manifests/1?ns=plain.lan", "http://pull.lan:8080/v2/a/manifests/1?ns=plain.lan"},
		"theirs.lan/a:1":        {"https://theirs.lan/v2/a/manifests/1"},
	}
	beside := maps.Clone(alone)
	beside["docker.io/library/a:1"] = []string{"MIRROR/v2/library/a/manifests/1?ns=docker.io", "https://theirs.lan/v2/library/a/manifests/1?ns=docker.io", "https://index.docker.io/v2/library/a/manifests/1"}
	// Theirs for all that have no entry counts for each as before.
	beside["ghcr.io/a:1"] = []string{"MIRROR/v2/a/manifests/1?ns=ghcr.io", "https://others.lan/v2/a/manifests/1?ns=ghcr.io", "https://ghcr.io/v2/a/manifests/1"}
	beside["alias.lan/a:1"] = []string{"MIRROR/v2/a/manifests/1?ns=alias.lan", "https://others.lan/v2/a/manifests/1?ns=alias.lan"}
	beside["corp.lan:5443/a:1"] = []string{"MIRROR/v2/a/manifests/1?ns=corp.lan%3A5443", "https://others.lan/v2/a/manifests/1?ns=corp.lan%3A5443", "https://corp.lan:5443/v2/a/manifests/1"}
	beside["far.lan/a:1"] = []string{"MIRROR/v2/a/manifests/1?ns=far.lan", "https://others.lan/v2/a/manifests/1?ns=far.lan"}
	beside["plain.lan/a:1"] = []string{"MIRROR/v2/a/manifests/1?ns=plain.lan", "https://others.lan/v2/a/manifests/1?ns=plain.lan"}
	beside["theirs.lan/a:1"] = []string{"https://others.lan/v2/a/manifests/1?ns=theirs.lan", "https://theirs.lan/v2/a/manifests/1"}
	w := newSurroundings(t)
	for _, by := range w.from {
		for _, runtime := range []string{"k3s", "rke2"} {
			t.Run(by.name+"/"+runtime, func(t *testing.T) {
				w.noted(t, runtime+" | wharfie", by)
				dir := t.TempDir()
				printed := filepath.Join(dir, "printed.yaml")
				writeFile(t, printed, w.hosts(t, by, runtime))
				w.means(t, by, "wharfie", printed, alone)

				fresh := filepath.Join(dir, "fresh")
				w.hosts(t, by, runtime, "--write", fresh)
				w.means(t, by, "wharfie", filepath.Join(fresh, "registries.yaml"), alone)

				theirs := filepath.Join(dir, "theirs")
				file := filepath.Join(theirs, "registries.yaml")
				writeFile(t, file, "mirrors:\n  docker.io: # since May\n    endpoint: [\"https://theirs.lan\"]\n  \"*\":\n    endpoint:\n    - https://others.lan\n"+
					"configs:\n  docker.io:\n    auth:\n      username: me\n      password: mine\n  others.lan:\n    tls:\n      ca_file: "+w.corp+"\n")
				before, had := filesIn(t, theirs), configsIn(t, file)
				w.hosts(t, by, runtime, "--write", theirs)
				w.means(t, by, "wharfie", file, beside)
				has := configsIn(t, file)
				if !reflect.DeepEqual(has["docker.io"].Auth, had["docker.io"].Auth) || !reflect.DeepEqual(has["others.lan"], had["others.lan"]) {
					t.Errorf("what they had said of hosts is now %+v", has)
				}
				w.taken(t, by, runtime, theirs, before)
			})
		}
	}
}

func configsIn(t *testing.T, file string) map[string]wharfie.RegistryConfig {
	t.Helper()
	read, err := wharfie.GetPrivateRegistries(file)
	if err != nil {
		t.Fatal(err)
	}
	return read.Registry.Configs
}
