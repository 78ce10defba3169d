package e2e

import (
	"encoding/json"
	"maps"
	"path/filepath"
	"reflect"
	"testing"
)

// What is made for Docker has to be one that it starts with: dockerd itself says
// so, of what is printed, of what is written, and of what is merged.
func TestDockerdTakesItsDaemonJSON(t *testing.T) {
	s := readSuite(t)
	dockerd := s.tool(t, "moby").program("dockerd")
	w := newSurroundings(t)
	for _, by := range w.from {
		t.Run(by.name, func(t *testing.T) {
			w.noted(t, "Docker before 29 | `dockerd --validate`", by)
			valid := func(file string) map[string]any {
				t.Helper()
				command(t, w.environment(), dockerd, "--validate", "--config-file", file)
				var read map[string]any
				if err := json.Unmarshal([]byte(readText(t, file)), &read); err != nil {
					t.Fatal(err)
				}
				return read
			}
			var ours []any
			for _, address := range by.addresses {
				ours = append(ours, address)
			}
			dir := t.TempDir()
			for _, version := range []string{"", "28"} {
				printed := filepath.Join(dir, "printed"+version+".json")
				args := []string{}
				if version != "" {
					args = append(args, "--version", version)
				}
				writeFile(t, printed, w.hosts(t, by, "docker", args...))
				if got, want := valid(printed), map[string]any{"registry-mirrors": ours}; !reflect.DeepEqual(got, want) {
					t.Errorf("printed is %v, want %v", got, want)
				}
			}
			fresh := filepath.Join(dir, "fresh")
			w.hosts(t, by, "docker", "--write", fresh)
			if got, want := valid(filepath.Join(fresh, "daemon.json")), map[string]any{"registry-mirrors": ours}; !reflect.DeepEqual(got, want) {
				t.Errorf("written is %v, want %v", got, want)
			}
			for name, theirs := range map[string]string{
				"other settings": "{\n  \"log-driver\": \"json-file\",\n  \"log-opts\": {\"max-size\": \"10m\"},\n  \"features\": {\"containerd-snapshotter\": true}\n}\n",
				"mirrors":        "{\n\t\"registry-mirrors\": [\n\t\t\"https://theirs.lan\"\n\t],\n\t\"insecure-registries\": [\"10.0.0.0/8\"], \"debug\": true\n}",
				"in one line":    `{"registry-mirrors":["https://theirs.lan/"],"max-concurrent-downloads":7}`,
				"nothing in it":  "{}\n",
				"nothing":        "",
			} {
				dir := filepath.Join(dir, name)
				file := filepath.Join(dir, "daemon.json")
				writeFile(t, file, theirs)
				before := filesIn(t, dir)
				want := map[string]any{}
				if theirs != "" {
					want = valid(file)
				}
				there, _ := want["registry-mirrors"].([]any)
				want["registry-mirrors"] = append(append([]any{}, ours...), there...)
				w.hosts(t, by, "docker", "--write", dir)
				if got := valid(file); !reflect.DeepEqual(got, want) {
					t.Errorf("%s: merged it is %v, want %v", name, got, want)
				}
				w.taken(t, by, "docker", dir, before)
			}
			// From 29 on it goes by hosts.toml, which is containerd's library again:
			// what daemon.json says of docker.io's mirrors is in it.
			newer := filepath.Join(dir, "mirrors")
			w.hosts(t, by, "docker", "--version", "29", "--write", newer)
			w.means(t, by, "containerd", filepath.Join(newer, "certs.d"), map[string][]string{
				"docker.io/library/a:1": {"MIRROR/v2/library/a/manifests/1?ns=docker.io", "https://theirs.lan/v2/library/a/manifests/1?ns=docker.io", "https://registry-1.docker.io/v2/library/a/manifests/1"},
				"ghcr.io/a:1":           {"MIRROR/v2/a/manifests/1?ns=ghcr.io", "https://ghcr.io/v2/a/manifests/1"},
				"corp.lan:5443/a:1":     {"MIRROR/v2/a/manifests/1?ns=corp.lan%3A5443", "https://corp.lan:5443/v2/a/manifests/1"},
			})
			before := map[string]string{"daemon.json": readText(t, filepath.Join(newer, "daemon.json"))}
			w.hosts(t, by, "docker", "--remove", newer)
			if got := filesIn(t, newer); !maps.Equal(got, before) {
				t.Errorf("--remove leaves %q", got)
			}
		})
	}
}
