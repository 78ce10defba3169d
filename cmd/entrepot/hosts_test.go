package main

import (
	"encoding/json"
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
	for _, c := range []struct{ golden, args, stderr string }{
		{golden: "containerd", args: "containerd --containerd-version 2.1.9"},
		{golden: "containerd", args: "containerd --version 2.1.9"},
		{golden: "containerd", args: "containerd", stderr: containerdUntold + "\n"},
		{golden: "containerd-2.2", args: "containerd --containerd-version v2.2.1"},
		{golden: "containerd-2.2", args: "containerd --version v2.2.1"},
		{golden: "docker", args: "docker --version 28.5.2", stderr: "# /etc/docker/daemon.json\n"},
		{golden: "docker", args: "docker", stderr: dockerUntold + "\n# /etc/docker/daemon.json\n"},
		{golden: "docker-elsewhere", args: "docker --address http://mirror.lan:5000/", stderr: dockerUntold + "\n# /etc/docker/daemon.json\n"},
		{golden: "docker-29.0", args: "docker --version v29.0.4"},
		{golden: "docker-29", args: "docker --version 29.1.0"},
		{golden: "docker-29", args: "docker --version 29"},
		{golden: "crio", args: "crio"},
		{golden: "podman", args: "podman"},
		{golden: "podman-tls", args: "podman --address https://mirror.lan"},
		{golden: "skopeo", args: "skopeo"},
		{golden: "buildkit", args: "buildkit"},
		{golden: "buildkit-tls", args: "buildkit --address https://mirror.lan"},
		{golden: "k3s", args: "k3s"},
		{golden: "rke2", args: "rke2"},
		{golden: "talos", args: "talos"},
		{golden: "homebrew", args: "homebrew"},
	} {
		t.Run(c.args, func(t *testing.T) {
			want, err := os.ReadFile(filepath.Join("testdata", "hosts", c.golden+".txt"))
			if err != nil {
				t.Fatal(err)
			}
			code, stdout, stderr := entrepot(t, append([]string{"hosts", "--config", "testdata/hosts.yaml"}, strings.Fields(c.args)...)...)
			if code != 0 || stderr != c.stderr || stdout != string(want) {
				t.Errorf("exit %d, stderr %q, stdout\n%s\nwant\n%s", code, stderr, stdout, want)
			}
		})
	}
}

// What knows the capability asks a mirror for referrers only where it is
// granted, and what does not know it ignores the whole file.
func TestHostsNamesReferrersOnlyToWhatKnowsThemW59(t *testing.T) {
	clean(t)
	for _, c := range []struct {
		runtime, version string
		want             bool
	}{
		{"containerd", "1.6.20", false},
		{"containerd", "1.7", false},
		{"containerd", "2.0.5", false},
		{"containerd", "2.1.4", false},
		{"containerd", "2.2", true},
		{"containerd", "v2.2.0", true},
		{"containerd", "2.2.0-rc.1", true},
		{"containerd", "2.10", true},
		{"containerd", "3.0", true},
		{"docker", "20.10.24", false},
		{"docker", "28.5.2", false},
		{"docker", "29.0.4", false}, // its library is containerd's 2.1.5
		{"docker", "29", true},
		{"docker", "29.1", true},
		{"docker", "v29.8.2", true},
		{"docker", "30.0.0-rc.1", true},
	} {
		code, stdout, stderr := entrepot(t, "hosts", c.runtime, "--version", c.version)
		if got := strings.Contains(stdout, `capabilities = ["pull", "resolve", "referrers"]`); code != 0 || got != c.want {
			t.Errorf("%s %s: exit %d, stderr %q, granted %v, want %v", c.runtime, c.version, code, stderr, got, c.want)
		}
	}
	for _, version := range []string{"2", "two.two", "2.x", "-", "0.2"} {
		if _, err := containerdVersion(version); err == nil {
			t.Errorf("containerd %s: got no error", version)
		}
	}
	for _, version := range []string{"new", "29.x", "-29", "0", "0.0.0-dev"} {
		if _, err := dockerVersion(version); err == nil {
			t.Errorf("docker %s: got no error", version)
		}
	}
}

// Without a version the files have to suit every Docker: one that does not
// know hosts.toml has daemon.json, and one that does has every registry.
func TestHostsWritesBothFormsForADockerOfAnyVersion(t *testing.T) {
	clean(t)
	folder := t.TempDir()
	if code, _, stderr := entrepot(t, "hosts", "docker", "--write", folder); code != 0 || stderr != dockerUntold+"\n" {
		t.Fatalf("exit %d, stderr %q", code, stderr)
	}
	daemon, err := os.ReadFile(filepath.Join(folder, "daemon.json"))
	var read map[string][]string
	if err != nil || json.Unmarshal(daemon, &read) != nil || !slices.Equal(read["registry-mirrors"], []string{"http://127.0.0.1:5000"}) {
		t.Errorf("daemon.json: %v\n%s", err, daemon)
	}
	for _, registry := range []string{"docker.io", "ghcr.io", "quay.io"} {
		hosts, err := os.ReadFile(filepath.Join(folder, "certs.d", registry, "hosts.toml"))
		if err != nil || !strings.Contains(string(hosts), `capabilities = ["pull", "resolve", "referrers"]`) {
			t.Errorf("%s: %v\n%s", registry, err, hosts)
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
		"containerd --version 2.1": "# /etc/containerd/certs.d/docker.io/hosts.toml\n# Made by \"entrepot hosts containerd\".\n" +
			"server = \"http://harbor.lan/v2/hub\"\noverride_path = true\n\n[host.\"http://127.0.0.1:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n",
		"docker --version 29": "# /etc/docker/certs.d/docker.io/hosts.toml\n# Made by \"entrepot hosts docker\".\n" +
			"server = \"http://harbor.lan/v2/hub\"\noverride_path = true\n\n[host.\"http://127.0.0.1:5000\"]\n  capabilities = [\"pull\", \"resolve\", \"referrers\"]\n",
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
			code, stdout, stderr := entrepot(t, append([]string{"hosts", "--config", "c.yaml"}, strings.Fields(runtime)...)...)
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
		"containerd --version 2.1": {
			"127.0.0.1:5100/hosts.toml", "containers.example.com/hosts.toml", "docker.io/hosts.toml", "gcr.io/hosts.toml", "ghcr.io/hosts.toml",
			"local.test/hosts.toml", "other.example.com:5000/hosts.toml", "parent.test/hosts.toml", "quay.io/hosts.toml",
			"virtual.example.com:5000/hosts.toml",
		},
		"docker --version 29": {
			"certs.d/127.0.0.1:5100/hosts.toml", "certs.d/containers.example.com/hosts.toml", "certs.d/docker.io/hosts.toml",
			"certs.d/gcr.io/hosts.toml", "certs.d/ghcr.io/hosts.toml", "certs.d/local.test/hosts.toml", "certs.d/other.example.com:5000/hosts.toml",
			"certs.d/parent.test/hosts.toml", "certs.d/quay.io/hosts.toml", "certs.d/virtual.example.com:5000/hosts.toml",
		},
		"docker --version 28": {"daemon.json"},
		"crio":                {"entrepot.conf"},
		"podman":              {"entrepot.conf"},
		"skopeo":              {"entrepot.conf"},
		"buildkit":            {"buildkitd.toml"},
		"k3s":                 {"registries.yaml"},
		"rke2":                {"registries.yaml"},
		"talos":               {"registry-mirrors.yaml"},
		"homebrew":            {"brew.env"},
	} {
		t.Run(runtime, func(t *testing.T) {
			folder := filepath.Join(t.TempDir(), "new")
			args := append([]string{"hosts", "--config", configuration, "--write", folder}, strings.Fields(runtime)...)
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

// readable is false for what should be TOML or JSON and is not.
func readable(path string, content []byte) bool {
	var anything map[string]any
	switch filepath.Ext(path) {
	case ".toml", ".conf":
		return toml.Unmarshal(content, &anything) == nil
	case ".json":
		return json.Unmarshal(content, &anything) == nil
	}
	return len(content) > 0
}

func TestHostsNeverOverwritesWhatSomebodyElseWrote(t *testing.T) {
	clean(t)
	for runtime, name := range map[string]string{
		"docker --version 28": "daemon.json", "docker --version 29": "certs.d/quay.io/hosts.toml", "podman": "entrepot.conf", "containerd --version 2.1": "quay.io/hosts.toml",
	} {
		t.Run(runtime, func(t *testing.T) {
			folder := t.TempDir()
			theirs := filepath.Join(folder, name)
			if err := os.MkdirAll(filepath.Dir(theirs), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(theirs, []byte("{}\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			code, _, stderr := entrepot(t, append([]string{"hosts", "--write", folder}, strings.Fields(runtime)...)...)
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
		{"no docker.io", "docker", "[{name: ghcr.io}]", "docker before 29 mirrors docker.io only, which is not among the upstreams; or tell --version 29 if it is that or later, which names every registry"},
		{"docker.io is not the default", "docker", "[{name: docker.io}]", "docker before 29 mirrors docker.io without naming it: make that upstream the default, or give it a virtual host under hosts; or tell --version 29 if it is that or later, which names every registry"},
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
		code, stdout, stderr := entrepot(t, "hosts", "docker", "--version", "28", "--config", "c.yaml", "--address", "http://127.0.0.1:5000")
		const want = "{\n  \"registry-mirrors\": [\n    \"http://hub.mirror.lan:5000\"\n  ],\n  \"insecure-registries\": [\n    \"hub.mirror.lan:5000\"\n  ]\n}\n"
		if code != 0 || stderr != "# /etc/docker/daemon.json\n" || stdout != want {
			t.Errorf("exit %d, stderr %q, stdout\n%s", code, stderr, stdout)
		}
	})
	t.Run("a Docker that names every registry needs no default", func(t *testing.T) {
		file(t, "c.yaml", "upstreams: [{name: ghcr.io}]\n")
		code, stdout, stderr := entrepot(t, "hosts", "docker", "--version", "29", "--config", "c.yaml")
		if code != 0 || stderr != "" || !strings.HasPrefix(stdout, "# /etc/docker/certs.d/ghcr.io/hosts.toml\n") {
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
