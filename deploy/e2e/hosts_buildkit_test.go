package e2e

import (
	"maps"
	"path/filepath"
	"testing"
)

// What BuildKit makes of buildkitd.toml is asked of its resolver.
func TestBuildkitdTOMLMeansWhatItShould(t *testing.T) {
	alone := map[string][]string{
		"docker.io/library/a:1": {"MIRROR/v2/docker.io/library/a/manifests/1?ns=docker.io", "https://registry-1.docker.io/v2/library/a/manifests/1"},
		"ghcr.io/a:1":           {"MIRROR/v2/ghcr.io/a/manifests/1?ns=ghcr.io", "https://ghcr.io/v2/a/manifests/1"},
		"alias.lan/a:1":         {"MIRROR/v2/ghcr.io/a/manifests/1?ns=alias.lan", "https://ghcr.io/v2/a/manifests/1?ns=alias.lan"},
		"corp.lan:5443/a:1":     {"MIRROR/v2/corp.lan_5443/a/manifests/1?ns=corp.lan%3A5443", "https://corp.lan:5443/v2/a/manifests/1"},
		"far.lan/a:1":           {"MIRROR/v2/far.lan/a/manifests/1?ns=far.lan", "https://deep.lan/v2/registry/a/manifests/1?ns=far.lan"},
		"plain.lan/a:1":         {"MIRROR/v2/plain.lan/a/manifests/1?ns=plain.lan", "http://pull.lan:8080/v2/a/manifests/1?ns=plain.lan"},
		"theirs.lan/a:1":        {"https://theirs.lan/v2/a/manifests/1"},
	}
	beside := maps.Clone(alone)
	beside["docker.io/library/a:1"] = []string{"MIRROR/v2/docker.io/library/a/manifests/1?ns=docker.io", "https://theirs.lan/v2/hub/library/a/manifests/1?ns=docker.io", "https://registry-1.docker.io/v2/library/a/manifests/1"}
	beside["far.lan/a:1"] = []string{"MIRROR/v2/far.lan/a/manifests/1?ns=far.lan", "https://others.lan/v2/a/manifests/1?ns=far.lan", "https://deep.lan/v2/registry/a/manifests/1?ns=far.lan"}
	beside["others.lan/a:1"] = []string{"https://others.lan/v2/a/manifests/1"}
	w := newSurroundings(t)
	for _, by := range w.from {
		t.Run(by.name, func(t *testing.T) {
			w.noted(t, "BuildKit, buildx | BuildKit's resolver", by)
			dir := t.TempDir()
			printed := filepath.Join(dir, "printed.toml")
			writeFile(t, printed, w.hosts(t, by, "buildkit"))
			w.means(t, by, "buildkit", printed, alone)

			fresh := filepath.Join(dir, "fresh")
			w.hosts(t, by, "buildkit", "--write", fresh)
			w.means(t, by, "buildkit", filepath.Join(fresh, "buildkitd.toml"), alone)

			theirs := filepath.Join(dir, "theirs")
			writeFile(t, filepath.Join(theirs, "buildkitd.toml"), "debug = true # since May\n\n[worker.oci]\n  gc = false\n\n[registry.\"docker.io\"]\n  mirrors = [\"theirs.lan/hub\"] # theirs\n"+
				"[registry.\"far.lan\"]\n  mirrors = [\n    \"others.lan\",\n  ]\n[registry.\"others.lan\"]\n  ca = [\""+w.corp+"\"]\n")
			before := filesIn(t, theirs)
			w.hosts(t, by, "buildkit", "--write", theirs)
			w.means(t, by, "buildkit", filepath.Join(theirs, "buildkitd.toml"), beside)
			w.taken(t, by, "buildkit", theirs, before)
		})
	}
}
