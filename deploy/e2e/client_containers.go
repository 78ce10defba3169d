package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// containersHome makes a folder with what every client of containers/image
// reads, its registries.conf from entrepot.
func (s *suite) containersHome(t *testing.T, m *mirror, runtime string, hostsFlags ...string) (dir string, env []string) {
	t.Helper()
	dir = s.folder(t)
	settings := filepath.Join(dir, ".config", "containers")
	m.hosts(t, runtime, filepath.Join(settings, "registries.conf.d"), hostsFlags...)
	policy := filepath.Join(settings, "policy.json")
	if err := os.WriteFile(policy, []byte(`{"default": [{"type": "insecureAcceptAnything"}]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir, environment(dir)
}

// podman holds images in a store of its own.
type podman struct {
	tool tool
	dir  string
	env  []string
}

func (s *suite) startPodman(t *testing.T, m *mirror) client {
	t.Helper()
	p := &podman{tool: s.tool(t, "podman")}
	p.dir, p.env = s.containersHome(t, m, "podman")
	return p
}

func (p *podman) podman(t *testing.T, args ...string) string {
	t.Helper()
	args = append([]string{
		"--root", filepath.Join(p.dir, "root"), "--runroot", filepath.Join(p.dir, "run"),
		"--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none",
	}, args...)
	return command(t, p.env, p.tool.program("podman"), args...)
}

func (p *podman) pull(t *testing.T, img image) {
	t.Helper()
	p.podman(t, "pull", img.reference())
}

func (p *podman) check(t *testing.T, img image) {
	t.Helper()
	checkInspected(t, p.podman(t, "image", "inspect", img.reference()), img, img.platforms["amd64"].config)
}

func (p *podman) forget(t *testing.T) {
	t.Helper()
	p.podman(t, "rmi", "--all", "--force")
	if left := p.podman(t, "images", "-aq"); left != "" {
		t.Fatalf("Podman still holds %s", left)
	}
}

// skopeo copies whole images into folders, each blob and manifest a file.
type skopeo struct {
	tool tool
	dir  string
	env  []string
}

func (s *suite) startSkopeo(t *testing.T, m *mirror) client {
	t.Helper()
	k := &skopeo{tool: s.tool(t, "skopeo")}
	k.dir, k.env = s.containersHome(t, m, "skopeo")
	return k
}

func (k *skopeo) folder(img image) string { return filepath.Join(k.dir, "copies", img.registry) }

func (k *skopeo) pull(t *testing.T, img image) {
	t.Helper()
	if err := os.MkdirAll(k.folder(img), 0o755); err != nil {
		t.Fatal(err)
	}
	// Not into an OCI layout: this skopeo cannot keep an index's bytes there.
	command(t, k.env, k.tool.program("skopeo"), "copy", "--all", "--preserve-digests", "docker://"+img.reference(), "dir:"+k.folder(img))
}

func (k *skopeo) check(t *testing.T, img image) {
	t.Helper()
	wanted := map[string]string{img.digest: "manifest.json"}
	for _, digest := range img.blobs(architectures...) {
		wanted[digest] = strings.TrimPrefix(digest, "sha256:")
	}
	for _, p := range img.platforms {
		wanted[p.manifest] = strings.TrimPrefix(p.manifest, "sha256:") + ".manifest.json"
	}
	for digest, file := range wanted {
		checkFile(t, filepath.Join(k.folder(img), file), digest)
	}
}

func (k *skopeo) forget(t *testing.T) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(k.dir, "copies")); err != nil {
		t.Fatal(err)
	}
}
