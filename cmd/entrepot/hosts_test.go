package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"

	"github.com/entrepot/entrepot/config"
)

func TestHostsPrintsExactlyWhatEachRuntimeReads(t *testing.T) {
	clean(t)
	for golden, args := range map[string]string{
		"containerd":       "containerd --containerd-version 2.1.9",
		"containerd-2.2":   "containerd --containerd-version v2.2.1",
		"docker":           "docker",
		"docker-elsewhere": "docker --address http://mirror.lan:5000/",
		"crio":             "crio",
		"podman":           "podman",
		"podman-tls":       "podman --address https://mirror.lan",
		"skopeo":           "skopeo",
		"buildkit":         "buildkit",
		"buildkit-tls":     "buildkit --address https://mirror.lan",
		"k3s":              "k3s",
		"rke2":             "rke2",
		"talos":            "talos",
		"homebrew":         "homebrew",
	} {
		t.Run(golden, func(t *testing.T) {
			want, err := os.ReadFile(filepath.Join("testdata", "hosts", golden+".txt"))
			if err != nil {
				t.Fatal(err)
			}
			code, stdout, stderr := entrepot(t, append([]string{"hosts", "--config", "testdata/hosts.yaml"}, strings.Fields(args)...)...)
			if code != 0 || stderr != "" || stdout != string(want) {
				t.Errorf("exit %d, stderr %q, stdout\n%s\nwant\n%s", code, stderr, stdout, want)
			}
		})
	}
}

func TestHostsNamesReferrersOnlyToContainerdThatKnowsThemW59(t *testing.T) {
	for version, want := range map[string]bool{
		"1.6.20": false, "1.7": false, "2.0.5": false, "2.1.4": false, "2.2": true, "v2.2.0": true, "2.2.0-rc.1": true, "2.10": true, "3.0": true,
	} {
		got, err := knowsReferrers(version)
		if err != nil || got != want {
			t.Errorf("%s: got %v, %v", version, got, err)
		}
	}
	for _, version := range []string{"2", "two.two", "2.x", "-"} {
		if _, err := knowsReferrers(version); err == nil {
			t.Errorf("%s: got no error", version)
		}
	}
}

func TestServerOfAnUpstreamIsItsLastEndpoint(t *testing.T) {
	for _, c := range []struct {
		endpoints []string
		want      config.Place
	}{
		{nil, config.Place{}},
		{[]string{"https://a.b"}, config.Place{}},
		{[]string{"http://a.b"}, config.Place{Scheme: "http", Host: "a.b"}},
		{[]string{"http://parent:5000", "https://c.d"}, config.Place{Scheme: "https", Host: "c.d"}},
		{[]string{"http://parent:5000/v2/a.b"}, config.Place{Scheme: "http", Host: "parent:5000", Prefix: "a.b"}},
		{[]string{"https://c.d", "https://a.b/base"}, config.Place{Scheme: "https", Host: "a.b", Base: "/base"}},
	} {
		if got := serverOf(config.Upstream{Name: "a.b", Endpoints: c.endpoints}, "a.b"); got != c.want {
			t.Errorf("%q: got %+v, want %+v", c.endpoints, got, c.want)
		}
	}
}

// Where docker.io is every runtime knows by itself, but not which project of a
// registry stands for it.
func TestHostsNamesTheProjectThatStandsForDockerHub(t *testing.T) {
	clean(t)
	file(t, "c.yaml", "upstreams: [{name: docker.io, default: true, endpoints: [\"http://harbor.lan/v2/hub\"]}]\n")
	for runtime, want := range map[string]string{
		"containerd": "# /etc/containerd/certs.d/docker.io/hosts.toml\n# Made by \"entrepot hosts containerd\".\n" +
			"server = \"http://harbor.lan/v2/hub\"\noverride_path = true\n\n[host.\"http://127.0.0.1:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n",
		"podman": "# /etc/containers/registries.conf.d/entrepot.conf\n# Made by \"entrepot hosts podman\".\n\n[[registry]]\nprefix = \"docker.io\"\n" +
			"location = \"harbor.lan/hub\"\ninsecure = true\n\n[[registry.mirror]]\nlocation = \"127.0.0.1:5000/docker.io\"\ninsecure = true\n",
		"buildkit": "# /etc/buildkit/buildkitd.toml\n# Made by \"entrepot hosts buildkit\".\n\n[registry.\"docker.io\"]\n" +
			"  mirrors = [\"127.0.0.1:5000/docker.io\", \"harbor.lan/hub\"]\n\n[registry.\"127.0.0.1:5000\"]\n  http = true\n\n[registry.\"harbor.lan\"]\n  http = true\n",
		"k3s": "# /etc/rancher/k3s/registries.yaml\n# Made by \"entrepot hosts k3s\".\nmirrors:\n  \"docker.io\":\n    endpoint:\n" +
			"      - \"http://127.0.0.1:5000\"\n      - \"http://harbor.lan/v2/hub\"\n",
		"talos": "# talos/registry-mirrors.yaml\n# Made by \"entrepot hosts talos\".\napiVersion: v1alpha1\nkind: RegistryMirrorConfig\nname: \"docker.io\"\nendpoints:\n" +
			"  - url: \"http://127.0.0.1:5000\"\n  - url: \"http://harbor.lan/v2/hub\"\n    overridePath: true\n",
	} {
		t.Run(runtime, func(t *testing.T) {
			code, stdout, stderr := entrepot(t, "hosts", runtime, "--config", "c.yaml")
			if code != 0 || stderr != "" || stdout != want {
				t.Errorf("exit %d, stderr %q, stdout\n%s\nwant\n%s", code, stderr, stdout, want)
			}
		})
	}
}

func TestHostsWritesFilesThatTheRuntimesFind(t *testing.T) {
	clean(t)
	configuration, err := filepath.Abs("testdata/hosts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for runtime, want := range map[string][]string{
		"containerd": {
			"127.0.0.1:5100/hosts.toml", "containers.example.com/hosts.toml", "docker.io/hosts.toml", "gcr.io/hosts.toml", "ghcr.io/hosts.toml",
			"local.test/hosts.toml", "other.example.com:5000/hosts.toml", "parent.test/hosts.toml", "quay.io/hosts.toml",
			"virtual.example.com:5000/hosts.toml",
		},
		"docker":   {"daemon.json"},
		"crio":     {"entrepot.conf"},
		"podman":   {"entrepot.conf"},
		"skopeo":   {"entrepot.conf"},
		"buildkit": {"buildkitd.toml"},
		"k3s":      {"registries.yaml"},
		"rke2":     {"registries.yaml"},
		"talos":    {"registry-mirrors.yaml"},
		"homebrew": {"brew.env"},
	} {
		t.Run(runtime, func(t *testing.T) {
			folder := filepath.Join(t.TempDir(), "new")
			args := []string{"hosts", runtime, "--config", configuration, "--write", folder}
			code, stdout, stderr := entrepot(t, args...)
			if code != 0 || stderr != "" {
				t.Fatalf("exit %d, stderr %q", code, stderr)
			}
			var got []string
			if err := fs.WalkDir(os.DirFS(folder), ".", func(path string, d fs.DirEntry, err error) error {
				if err == nil && !d.IsDir() {
					got = append(got, path)
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, want) {
				t.Errorf("wrote %q, want %q", got, want)
			}
			for _, path := range want {
				if name := filepath.Join(folder, path); !strings.Contains(stdout, name+"\n") {
					t.Errorf("%s is not named in\n%s", name, stdout)
				}
				if content, err := os.ReadFile(filepath.Join(folder, path)); err != nil || !readable(path, content) {
					t.Errorf("%s: %v\n%s", path, err, content)
				}
			}
			if code, _, stderr := entrepot(t, args...); code != 0 {
				t.Errorf("again: exit %d, stderr %q", code, stderr)
			}
		})
	}
}

// readable is false for what should be TOML and is not.
func readable(path string, content []byte) bool {
	var anything map[string]any
	switch filepath.Ext(path) {
	case ".toml", ".conf":
		return toml.Unmarshal(content, &anything) == nil
	}
	return len(content) > 0
}

func TestHostsNeverOverwritesWhatSomebodyElseWrote(t *testing.T) {
	clean(t)
	for runtime, name := range map[string]string{"docker": "daemon.json", "podman": "entrepot.conf", "containerd": "quay.io/hosts.toml"} {
		t.Run(runtime, func(t *testing.T) {
			folder := t.TempDir()
			theirs := filepath.Join(folder, name)
			if err := os.MkdirAll(filepath.Dir(theirs), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(theirs, []byte("{}\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			code, _, stderr := entrepot(t, "hosts", runtime, "--write", folder)
			want := "entrepot: " + theirs + " is there already and not made by entrepot: add by hand what \"entrepot hosts\" prints, or move it away\n"
			if code != 1 || stderr != want {
				t.Errorf("exit %d, stderr %q, want %q", code, stderr, want)
			}
			if kept, err := os.ReadFile(theirs); err != nil || string(kept) != "{}\n" {
				t.Errorf("their file is now %q, %v", kept, err)
			}
			if left, err := os.ReadDir(folder); err != nil || len(left) != 1 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
	t.Run("but what it made itself for another address", func(t *testing.T) {
		folder := t.TempDir()
		for _, address := range []string{"http://a.lan", "http://b.lan"} {
			if code, _, stderr := entrepot(t, "hosts", "podman", "--write", folder, "--address", address); code != 0 {
				t.Fatalf("exit %d, stderr %q", code, stderr)
			}
		}
		content, err := os.ReadFile(filepath.Join(folder, "entrepot.conf"))
		if err != nil || strings.Contains(string(content), "a.lan") || !strings.Contains(string(content), "b.lan/quay.io") {
			t.Errorf("%v\n%s", err, content)
		}
	})
}

func TestHostsSaysWhatARuntimeLacks(t *testing.T) {
	clean(t)
	for _, c := range []struct{ name, runtime, upstreams, want string }{
		{"no docker.io", "docker", "[{name: ghcr.io}]", "docker mirrors docker.io only, which is not among the upstreams"},
		{"docker.io is not the default", "docker", "[{name: docker.io}]", "docker mirrors docker.io without naming it: make that upstream the default, or give it a virtual host under hosts"},
		{"no ghcr.io", "homebrew", "[{name: quay.io}]", "homebrew pulls from ghcr.io, which is not among the upstreams"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file(t, "c.yaml", "upstreams: "+c.upstreams+"\n")
			code, stdout, stderr := entrepot(t, "hosts", c.runtime, "--config", "c.yaml")
			if code != 1 || stdout != "" || stderr != "entrepot: "+c.want+"\n" {
				t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
			}
		})
	}
	t.Run("a virtual host stands in for the default", func(t *testing.T) {
		file(t, "c.yaml", "upstreams: [{name: docker.io, hosts: [hub.mirror.lan]}]\n")
		code, stdout, stderr := entrepot(t, "hosts", "docker", "--config", "c.yaml", "--address", "http://127.0.0.1:5000")
		const want = "# /etc/docker/daemon.json\n{\n  \"registry-mirrors\": [\n    \"http://hub.mirror.lan:5000\"\n  ],\n  \"insecure-registries\": [\n    \"hub.mirror.lan:5000\"\n  ]\n}\n"
		if code != 0 || stderr != "" || stdout != want {
			t.Errorf("exit %d, stderr %q, stdout\n%s", code, stderr, stdout)
		}
	})
	t.Run("entrepot listens everywhere", func(t *testing.T) {
		code, stdout, stderr := entrepot(t, "hosts", "homebrew", "--listen", ":80")
		const want = "# /etc/homebrew/brew.env\n# Made by \"entrepot hosts homebrew\".\nHOMEBREW_ARTIFACT_DOMAIN=http://127.0.0.1:80/v2/ghcr.io\n"
		if code != 0 || stdout != want || !strings.Contains(stderr, "--address") {
			t.Errorf("exit %d, stderr %q, stdout\n%s", code, stderr, stdout)
		}
	})
}
