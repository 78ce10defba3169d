package e2e

import (
	"maps"
	"path/filepath"
	"strings"
	"testing"
)

// Whom Podman and its kin ask by the files, and whose certificates they believe,
// is seen with the library that all of them pull with.
func TestRegistriesConfAsksWhomItShould(t *testing.T) {
	alone := map[string][]string{
		"docker.io/library/a:1": {"MIRROR/v2/docker.io/library/a/manifests/1", "https://registry-1.docker.io/v2/library/a/manifests/1"},
		"ghcr.io/a:1":           {"MIRROR/v2/ghcr.io/a/manifests/1", "https://ghcr.io/v2/a/manifests/1"},
		"alias.lan/a:1":         {"MIRROR/v2/ghcr.io/a/manifests/1", "https://ghcr.io/v2/a/manifests/1"},
		"corp.lan:5443/a:1":     {"MIRROR/v2/corp.lan_5443/a/manifests/1", "https://corp.lan:5443/v2/a/manifests/1"},
		"far.lan/a:1":           {"MIRROR/v2/far.lan/a/manifests/1", "https://deep.lan/v2/registry/a/manifests/1"},
		"plain.lan/a:1":         {"MIRROR/v2/plain.lan/a/manifests/1", "http://pull.lan:8080/v2/a/manifests/1"},
		"theirs.lan/a:1":        {"https://theirs.lan/v2/a/manifests/1"},
	}
	beside := maps.Clone(alone)
	beside["docker.io/library/a:1"] = []string{"MIRROR/v2/docker.io/library/a/manifests/1", "https://theirs.lan/v2/hub/library/a/manifests/1", "https://registry-1.docker.io/v2/library/a/manifests/1"}
	beside["far.lan/a:1"] = []string{"MIRROR/v2/far.lan/a/manifests/1", "https://others.lan/v2/far/a/manifests/1"}
	beside["others.lan/a:1"] = []string{"https://others.lan/v2/a/manifests/1"}
	w := newSurroundings(t)
	for _, by := range w.from {
		for runtime, name := range map[string]string{"podman": "Podman", "crio": "CRI-O", "skopeo": "skopeo", "buildah": "buildah"} {
			t.Run(by.name+"/"+runtime, func(t *testing.T) {
				if isIPv6(by) {
					const why = "no image name can hold an IPv6 address"
					_, refusal, err := try(t.Context(), "", w.environment(), setting(t, "ENTREPOT_E2E_PROGRAM"),
						"hosts", runtime, "--config", w.configuration, "--address", by.addresses[0])
					if err == nil || !strings.Contains(refusal, why) {
						t.Fatalf("%v: %s", err, refusal)
					}
					w.notedAs(t, name+" | containers/image", by, "refused: "+why)
					return
				}
				w.noted(t, name+" | containers/image", by)
				etc := filepath.Join(t.TempDir(), "containers")
				drops := filepath.Join(etc, "registries.conf.d")
				writeFile(t, filepath.Join(etc, "registries.conf"), "")
				before := filesIn(t, etc)
				w.hosts(t, by, runtime, "--write", drops)
				w.means(t, by, "containers", etc, alone)
				w.hosts(t, by, runtime, "--remove", drops)
				if got := filesIn(t, etc); !maps.Equal(got, before) {
					t.Errorf("--remove leaves %q", got)
				}

				theirs := filepath.Join(t.TempDir(), "containers")
				drops = filepath.Join(theirs, "registries.conf.d")
				writeFile(t, filepath.Join(theirs, "registries.conf"), "# since May\nunqualified-search-registries = [\"docker.io\"]\n\n[[registry]]\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \"theirs.lan/hub\"\n")
				writeFile(t, filepath.Join(drops, "50-far.conf"), "[[registry]]\nprefix = \"far.lan\"\nlocation = \"others.lan/far\"\n")
				writeFile(t, filepath.Join(theirs, "certs.d", "others.lan", "ca.crt"), readText(t, w.corp))
				before = filesIn(t, theirs)
				w.hosts(t, by, runtime, "--write", drops)
				w.means(t, by, "containers", theirs, beside)
				w.hosts(t, by, runtime, "--remove", drops)
				if got := filesIn(t, theirs); !maps.Equal(got, before) {
					t.Errorf("--remove leaves %q\nwant %q", got, before)
				}
			})
		}
	}
}
