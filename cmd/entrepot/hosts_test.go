package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
	"go.yaml.in/yaml/v3"

	"github.com/entrepot/entrepot/cmd/entrepot/hosts"
)

func TestHostsPrintsExactlyWhatEachRuntimeReads(t *testing.T) {
	clean(t)
	t.Setenv("HOME", "/home/me")
	for _, c := range []struct{ golden, args, stderr string }{
		{golden: "containerd", args: "containerd --containerd-version 2.1.9"},
		{golden: "containerd", args: "containerd --version 2.1.9"},
		{golden: "containerd", args: "containerd", stderr: "without --version these files grant no"},
		{golden: "containerd-2.2", args: "containerd --containerd-version v2.2.1"},
		{golden: "containerd-2.2", args: "containerd --version v2.2.1"},
		{golden: "docker", args: "docker --version 28.5.2", stderr: "# /etc/docker/daemon.json\n"},
		{golden: "docker", args: "docker", stderr: "without --version there are two forms"},
		{golden: "docker-elsewhere", args: "docker --address http://mirror.lan:5000/", stderr: "without --version there are two forms"},
		{golden: "docker-29.0", args: "docker --version v29.0.4"},
		{golden: "docker-29", args: "docker --version 29.1.0"},
		{golden: "docker-29", args: "docker --version 29"},
		{golden: "crio", args: "crio", stderr: "gcr.io itself is left out: no location can be at"},
		{golden: "podman", args: "podman", stderr: "gcr.io itself is left out: no location can be at"},
		{golden: "podman-tls", args: "podman --address https://mirror.lan", stderr: "gcr.io itself is left out"},
		{golden: "skopeo", args: "skopeo", stderr: "gcr.io itself is left out: no location can be at"},
		{golden: "buildah", args: "buildah", stderr: "gcr.io itself is left out: no location can be at"},
		{golden: "buildkit", args: "buildkit", stderr: "gcr.io itself is left out: its API is below"},
		{golden: "buildkit-tls", args: "buildkit --address https://mirror.lan", stderr: "gcr.io itself is left out"},
		{golden: "buildkit-loopback-tls", args: "buildkit --address https://127.0.0.1:5000", stderr: "gcr.io itself is left out"},
		{golden: "buildx", args: "buildx --address http://mirror.lan:5000", stderr: "gcr.io itself is left out"},
		{golden: "k3s", args: "k3s --address http://mirror.lan:5000"},
		{golden: "rke2", args: "rke2 --address http://mirror.lan:5000"},
		{golden: "talos", args: "talos --address http://mirror.lan:5000", stderr: "without --version this is machine.registries"},
		{golden: "talos", args: "talos --address http://mirror.lan:5000 --version 1.11.3", stderr: "stay before these"},
		{golden: "talos-1.12", args: "talos --address http://mirror.lan:5000 --version v1.12.0", stderr: "its settings in machine.registries no longer count"},
		{golden: "openshift", args: "openshift --address http://mirror.lan:5000", stderr: "insecureRegistries"},
		{golden: "bottlerocket", args: "bottlerocket --address http://mirror.lan:5000"},
		{golden: "trivy", args: "trivy --address https://mirror.lan"},
		{golden: "kaniko", args: "kaniko --address http://mirror.lan:5000", stderr: "--insecure-registry=mirror.lan:5000"},
		{golden: "crossplane", args: "crossplane --address https://mirror.lan"},
		{golden: "renovate", args: "renovate --address http://mirror.lan:5000", stderr: "renovate.json"},
		{golden: "homebrew", args: "homebrew", stderr: "in place of ghcr.io"},
	} {
		t.Run(c.args, func(t *testing.T) {
			want, err := os.ReadFile(filepath.Join("testdata", "hosts", c.golden+".txt"))
			if err != nil {
				t.Fatal(err)
			}
			code, stdout, stderr := entrepot(t, append([]string{"hosts", "--config", "testdata/hosts.yaml"}, strings.Fields(c.args)...)...)
			if code != 0 || c.stderr == "" && stderr != "" || !strings.Contains(stderr, c.stderr) || stdout != string(want) {
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
		code, stdout, stderr := entrepot(t, "hosts", c.runtime, "--version", c.version, "--listen", "127.0.0.1:5000")
		if got := strings.Contains(stdout, `capabilities = ["pull", "resolve", "referrers"]`); code != 0 || got != c.want {
			t.Errorf("%s %s: exit %d, stderr %q, granted %v, want %v", c.runtime, c.version, code, stderr, got, c.want)
		}
	}
	for runtime, versions := range map[string][]string{
		"containerd": {"2", "two.two", "2.x", "-", "0.2"},
		"docker":     {"new", "29.x", "-29", "0", "0.0.0-dev"},
	} {
		for _, version := range versions {
			if code, stdout, _ := entrepot(t, "hosts", runtime, "--version="+version, "--listen", "127.0.0.1:5000"); code != 2 || stdout != "" {
				t.Errorf("%s %s: exit %d", runtime, version, code)
			}
		}
	}
}

// Without a version the files have to suit every Docker: one that does not
// know hosts.toml has daemon.json, and one that does has every registry.
func TestHostsWritesBothFormsForADockerOfAnyVersion(t *testing.T) {
	clean(t)
	t.Setenv("PATH", "") // no Docker is found
	folder := t.TempDir()
	if code, _, stderr := entrepot(t, "hosts", "docker", "--write", folder, "--listen", "127.0.0.1:5000"); code != 0 || !strings.Contains(stderr, "without --version there are two forms") {
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

// Where docker.io is every runtime knows by itself, but not which project of a
// registry stands for it.
func TestHostsNamesTheProjectThatStandsForDockerHub(t *testing.T) {
	clean(t)
	file(t, "c.yaml", "upstreams: [{name: docker.io, default: true, endpoints: [\"http://harbor.lan/v2/hub\"]}]\n")
	for runtime, want := range map[string]string{
		"containerd --version 2.1": "server = \"http://harbor.lan/v2/hub\"\noverride_path = true\n\n[host.\"http://mirror.lan:5000\"]\n" +
			"  capabilities = [\"pull\", \"resolve\"]\n  dial_timeout = \"1s\"\n",
		"docker --version 29": "server = \"http://harbor.lan/v2/hub\"\noverride_path = true\n\n[host.\"http://mirror.lan:5000\"]\n" +
			"  capabilities = [\"pull\", \"resolve\", \"referrers\"]\n  dial_timeout = \"1s\"\n",
		"podman": "[[registry]]\nprefix = \"docker.io\"\n" +
			"location = \"harbor.lan/hub\"\ninsecure = true\n\n[[registry.mirror]]\nlocation = \"mirror.lan:5000/docker.io\"\ninsecure = true\n",
		"buildkit": "[registry.\"docker.io\"]\n" +
			"  mirrors = [\"mirror.lan:5000/docker.io\", \"harbor.lan/hub\"]\n\n[registry.\"harbor.lan\"]\n  http = true\n\n[registry.\"mirror.lan:5000\"]\n  http = true\n",
		"k3s": "mirrors:\n  \"docker.io\":\n    endpoint:\n" +
			"      - \"http://mirror.lan:5000\"\n      - \"http://harbor.lan/v2/hub\"\n",
		"talos --version 1.11": "machine:\n  registries:\n    mirrors:\n      \"docker.io\":\n        endpoints:\n" +
			"          - \"http://mirror.lan:5000/v2\"\n          - \"http://harbor.lan/v2/hub\"\n        overridePath: true\n",
		"talos --version 1.12": "apiVersion: v1alpha1\nkind: RegistryMirrorConfig\nname: \"docker.io\"\nendpoints:\n" +
			"  - url: \"http://mirror.lan:5000\"\n  - url: \"http://harbor.lan/v2/hub\"\n    overridePath: true\nskipFallback: false\n",
	} {
		t.Run(runtime, func(t *testing.T) {
			args := append([]string{"hosts", "--config", "c.yaml", "--address", "http://mirror.lan:5000"}, strings.Fields(runtime)...)
			code, stdout, stderr := entrepot(t, args...)
			if code != 0 || stderr != "" && !strings.HasPrefix(runtime, "talos") || withoutComments(stdout) != want {
				t.Errorf("exit %d, stderr %q, stdout\n%s\nwant\n%s", code, stderr, stdout, want)
			}
		})
	}
}

func withoutComments(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			b.WriteString(line)
		}
	}
	return b.String()
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
		"buildah":             {"entrepot.conf"},
		"buildkit":            {"buildkitd.toml"},
		"buildx":              {"buildkitd.default.toml"},
		"k3s":                 {"registries.yaml"},
		"rke2":                {"registries.yaml"},
		"talos":               {"registry-mirrors.yaml"},
		"homebrew":            {"brew.env"},
		"openshift":           {"entrepot-mirrors.yaml"},
		"bottlerocket":        {"user-data.toml"},
		"trivy":               {"trivy.yaml"},
		"kaniko":              {"kaniko.sh"},
		"crossplane":          {"imageconfigs.yaml"},
		"renovate":            {"renovate.json"},
	} {
		t.Run(runtime, func(t *testing.T) {
			folder := filepath.Join(t.TempDir(), "new.conf.d")
			args := append([]string{"hosts", "--config", configuration, "--write", folder}, strings.Fields(runtime)...)
			code, stdout, stderr := entrepot(t, args...)
			if code != 0 || !strings.Contains(stderr, "to restart: ") {
				t.Fatalf("exit %d, stderr %q", code, stderr)
			}
			var got []string
			if err := fs.WalkDir(os.DirFS(folder), ".", func(path string, d fs.DirEntry, err error) error {
				if err == nil && !d.IsDir() && d.Name() != hosts.StateName {
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
			before := snapshot(t, folder)
			if code, _, stderr := entrepot(t, args...); code != 0 || !maps.Equal(snapshot(t, folder), before) {
				t.Errorf("again: exit %d, stderr %q, %q", code, stderr, snapshot(t, folder))
			}
			if code, _, stderr := entrepot(t, append([]string{"hosts", "--config", configuration, "--remove", folder}, strings.Fields(runtime)...)...); code != 0 {
				t.Errorf("removed: exit %d, stderr %q", code, stderr)
			}
			if _, err := os.Stat(folder); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("left behind: %q", snapshot(t, folder))
			}
		})
	}
}

// readable is false for what should be TOML, YAML or JSON and is not.
func readable(path string, content []byte) bool {
	var anything map[string]any
	switch filepath.Ext(path) {
	case ".toml", ".conf":
		return toml.Unmarshal(content, &anything) == nil
	case ".json":
		return json.Unmarshal(content, &anything) == nil
	case ".yaml":
		for decoder := yaml.NewDecoder(bytes.NewReader(content)); ; {
			switch err := decoder.Decode(&anything); {
			case errors.Is(err, io.EOF):
				return len(anything) > 0
			case err != nil:
				return false
			}
		}
	}
	return len(content) > 0
}

// snapshot is every file below a folder.
func snapshot(t *testing.T, folder string) map[string]string {
	t.Helper()
	files := map[string]string{}
	if err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		files[path] = string(content)
		return err
	}); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return files
}

func TestHostsSaysWhatARuntimeLacks(t *testing.T) {
	clean(t)
	for _, c := range []struct{ name, runtime, upstreams, want string }{
		{"no docker.io", "docker", "[{name: ghcr.io}]", "docker before 29 mirrors docker.io only, which is not among the upstreams; or give --version 29 if it is 29 or later, which names every registry"},
		{"docker.io is not the default", "docker", "[{name: docker.io}]", "docker before 29 mirrors docker.io without naming it: make that upstream the default, or give it a virtual host under hosts; or give --version 29 if it is 29 or later, which names every registry"},
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
		const want = "{\n  \"registry-mirrors\": [\n    \"http://hub.mirror.lan:5000\"\n  ]\n}\n"
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
		const want = "export HOMEBREW_ARTIFACT_DOMAIN=http://127.0.0.1:80/v2/ghcr.io\n"
		if code != 0 || withoutComments(stdout) != want || !strings.Contains(stderr, "--address") {
			t.Errorf("exit %d, stderr %q, stdout\n%s", code, stderr, stdout)
		}
	})
}

// A folder may follow --write with a space, as it always could, or with "=", or
// not at all.
func TestHostsTakesAFolderInEveryForm(t *testing.T) {
	clean(t)
	for _, form := range []string{"docker --write FOLDER", "--write FOLDER docker", "--write=FOLDER docker", "docker --write=FOLDER", "docker FOLDER --write", "--write docker FOLDER", "docker --dry-run FOLDER --write"} {
		t.Run(form, func(t *testing.T) {
			folder := filepath.Join(t.TempDir(), "new.conf.d")
			args := append([]string{"hosts", "--version", "28", "--listen", "127.0.0.1:5000"}, strings.Fields(strings.ReplaceAll(form, "FOLDER", folder))...)
			code, stdout, stderr := entrepot(t, args...)
			_, err := os.Stat(filepath.Join(folder, "daemon.json"))
			if code != 0 || !strings.Contains(stdout, filepath.Join(folder, "daemon.json")) || (err == nil) == strings.Contains(form, "dry-run") {
				t.Errorf("exit %d, %v, stdout %q, stderr %q", code, err, stdout, stderr)
			}
		})
	}
}

func TestHostsWritesWhereTheRuntimeOfAUserLooks(t *testing.T) {
	clean(t)
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	if os.Geteuid() == 0 {
		// Root's own place is the system's, which a test leaves alone: it only looks.
		code, stdout, _ := entrepot(t, "hosts", "homebrew", "--write", "--dry-run", "--listen", "127.0.0.1:5000")
		if code != 0 || !strings.Contains(stdout, "+++ /etc/homebrew/brew.env\n") {
			t.Errorf("exit %d, stdout %q", code, stdout)
		}
		return
	}
	code, stdout, stderr := entrepot(t, "hosts", "homebrew", "--write", "--listen", "127.0.0.1:5000")
	if want := filepath.Join(os.Getenv("XDG_CONFIG_HOME"), "homebrew", "brew.env"); code != 0 || stdout != want+"\n" {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestHostsCheckExitsWithOneWhereSomethingDoesNotComeHere(t *testing.T) {
	clean(t)
	t.Setenv("PATH", "")
	folder := t.TempDir()
	all := []string{"hosts", "docker", "--version", "29", "--listen", "127.0.0.1:5000"}
	if code, stdout, _ := entrepot(t, append(all, "--check", folder)...); code != 1 || !strings.Contains(stdout, "ghcr.io: DOES NOT COME HERE") {
		t.Errorf("before: exit %d, stdout %q", code, stdout)
	}
	if code, _, stderr := entrepot(t, append(all, "--write", folder)...); code != 0 {
		t.Errorf("exit %d, stderr %q", code, stderr)
	}
	if code, stdout, _ := entrepot(t, append(all, "--check", folder)...); code != 0 || !strings.Contains(stdout, "ghcr.io: comes here\n") {
		t.Errorf("after: exit %d, stdout %q", code, stdout)
	}
	if code, stdout, _ := entrepot(t, append(all, "--check", folder, "--address", "http://other.lan")...); code != 1 || !strings.Contains(stdout, "lists http://127.0.0.1:5000 first") {
		t.Errorf("of another: exit %d, stdout %q", code, stdout)
	}
}

func TestHostsWarnsOfALoopbackAddressForOtherMachines(t *testing.T) {
	clean(t)
	_, _, stderr := entrepot(t, "hosts", "talos", "--listen", "127.0.0.1:5000")
	if !strings.Contains(stderr, "http://127.0.0.1:5000 works on this machine only") {
		t.Errorf("stderr %q", stderr)
	}
}

func TestHostsTriesAddressesInTheirOrder(t *testing.T) {
	clean(t)
	code, stdout, _ := entrepot(t, "hosts", "docker", "--version", "28", "--listen", "127.0.0.1:5000", "--address", "http://b.lan", "--address", "http://a.lan:5000", "--address", "http://B.lan")
	if code != 0 || stdout != "{\n  \"registry-mirrors\": [\n    \"http://b.lan\",\n    \"http://a.lan:5000\"\n  ]\n}\n" {
		t.Errorf("exit %d, stdout\n%s", code, stdout)
	}
}
