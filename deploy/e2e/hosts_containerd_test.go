package e2e

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What containerd, and Docker from 29 on, make of hosts.toml files is asked of
// containerd's ConfigureHosts.
func TestHostsTOMLMeansWhatItShould(t *testing.T) {
	alone := map[string][]string{
		"docker.io/library/a:1": {"MIRROR/v2/library/a/manifests/1?ns=docker.io", "https://registry-1.docker.io/v2/library/a/manifests/1"},
		"ghcr.io/a:1":           {"MIRROR/v2/a/manifests/1?ns=ghcr.io", "https://ghcr.io/v2/a/manifests/1"},
		"alias.lan/a:1":         {"MIRROR/v2/a/manifests/1?ns=alias.lan", "https://ghcr.io/v2/a/manifests/1?ns=alias.lan"},
		"corp.lan:5443/a:1":     {"MIRROR/v2/a/manifests/1?ns=corp.lan%3A5443", "https://corp.lan:5443/v2/a/manifests/1"},
		"far.lan/a:1":           {"MIRROR/v2/a/manifests/1?ns=far.lan", "https://deep.lan/v2/registry/a/manifests/1?ns=far.lan"},
		"plain.lan/a:1":         {"MIRROR/v2/a/manifests/1?ns=plain.lan", "http://pull.lan:8080/v2/a/manifests/1?ns=plain.lan"},
		"theirs.lan/a:1":        {"https://theirs.lan/v2/a/manifests/1"},
	}
	beside := maps.Clone(alone)
	beside["docker.io/library/a:1"] = []string{"MIRROR/v2/library/a/manifests/1?ns=docker.io", "https://theirs.lan/v2/hub/library/a/manifests/1?ns=docker.io", "https://registry-1.docker.io/v2/library/a/manifests/1"}
	// Theirs for all that have no folder counts for each as before.
	beside["ghcr.io/a:1"] = []string{"MIRROR/v2/a/manifests/1?ns=ghcr.io", "https://others.lan/v2/a/manifests/1?ns=ghcr.io", "https://ghcr.io/v2/a/manifests/1"}
	beside["alias.lan/a:1"] = []string{"MIRROR/v2/a/manifests/1?ns=alias.lan", "https://others.lan/v2/a/manifests/1?ns=alias.lan"}
	beside["far.lan/a:1"] = []string{"MIRROR/v2/a/manifests/1?ns=far.lan", "https://others.lan/v2/a/manifests/1?ns=far.lan"}
	beside["plain.lan/a:1"] = []string{"MIRROR/v2/a/manifests/1?ns=plain.lan", "https://others.lan/v2/a/manifests/1?ns=plain.lan"}
	beside["theirs.lan/a:1"] = []string{"https://others.lan/v2/a/manifests/1?ns=theirs.lan", "https://theirs.lan/v2/a/manifests/1"}
	w := newSurroundings(t)
	for _, by := range w.from {
		t.Run(by.name, func(t *testing.T) {
			w.noted(t, "containerd | its own resolver", by)
			dir := t.TempDir()
			heading := regexp.MustCompile(`(?m)^# (/etc/containerd/certs\.d/\S+)$`)
			printed := w.hosts(t, by, "containerd", "--version", "2.4")
			heads := heading.FindAllStringSubmatchIndex(printed, -1)
			for i, at := range heads {
				end := len(printed)
				if i+1 < len(heads) {
					end = heads[i+1][0]
				}
				name := strings.TrimPrefix(printed[at[2]:at[3]], "/etc/containerd/certs.d/")
				writeFile(t, filepath.Join(dir, "printed", name), printed[at[1]:end])
			}
			w.means(t, by, "containerd", filepath.Join(dir, "printed"), alone)

			fresh := filepath.Join(dir, "fresh")
			w.hosts(t, by, "containerd", "--version", "2.4", "--write", fresh)
			w.means(t, by, "containerd", fresh, alone)

			theirs := filepath.Join(dir, "theirs")
			writeFile(t, filepath.Join(theirs, "docker.io", "hosts.toml"), "# ours since May\nserver = \"https://registry-1.docker.io\"\nca = \""+w.corp+"\"\n\n[host.\"https://theirs.lan/v2/hub\"]\n  capabilities = [\"pull\", \"resolve\"]\n  override_path = true\n")
			writeFile(t, filepath.Join(theirs, "corp.lan_5443_", "ca.crt"), readText(t, w.corp))
			writeFile(t, filepath.Join(theirs, "_default", "hosts.toml"), "[host.\"https://others.lan\"]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = [\""+w.corp+"\"]\n")
			before := filesIn(t, theirs)
			w.hosts(t, by, "containerd", "--version", "2.4", "--write", theirs)
			w.means(t, by, "containerd", theirs, beside)
			w.taken(t, by, "containerd", theirs, before)

			// What a config.toml says in the older form moves with it.
			etc := filepath.Join(dir, "containerd")
			const section = `[plugins."io.containerd.grpc.v1.cri".registry.`
			writeFile(t, filepath.Join(etc, "config.toml"), "version = 2\n"+section+"mirrors.\"docker.io\"]\n  endpoint = [\"https://theirs.lan/v2/hub\"]\n"+
				section+"configs.\"registry-1.docker.io\".tls]\n  ca_file = \""+w.corp+"\"\n"+section+"mirrors.\"*\"]\n  endpoint = [\"https://others.lan\"]\n"+
				section+"configs.\"others.lan\".tls]\n  ca_file = \""+w.corp+"\"\n"+section+"configs.\"corp.lan:5443\".tls]\n  ca_file = \""+w.corp+"\"\n")
			older := filepath.Join(etc, "certs.d")
			before = filesIn(t, etc)
			w.hosts(t, by, "containerd", "--version", "2.0", "--write", older)
			moved := maps.Clone(beside)
			moved["corp.lan:5443/a:1"] = []string{"MIRROR/v2/a/manifests/1?ns=corp.lan%3A5443", "https://others.lan/v2/a/manifests/1?ns=corp.lan%3A5443", "https://corp.lan:5443/v2/a/manifests/1"}
			moved["others.lan/a:1"] = []string{"https://others.lan/v2/a/manifests/1"}
			w.means(t, by, "containerd", older, moved)
			w.hosts(t, by, "containerd", "--version", "2.0", "--remove", older)
			if got := filesIn(t, etc); !maps.Equal(got, before) {
				t.Errorf("--remove leaves %q\nwant %q", got, before)
			}
		})
	}
}

func readText(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
