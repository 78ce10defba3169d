package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// kubelet is a containerd of its own with Kubernetes' side, asked by crictl for
// what a kubelet asks it for.
type kubelet struct {
	*containerd
	crictl tool
}

func (s *suite) startKubelet(t *testing.T, m *mirror) client {
	t.Helper()
	k := &kubelet{s.newContainerd(t, "containerd"), s.tool(t, "crictl")}
	k.namespace = "k8s.io" // where Kubernetes' side keeps its images
	m.hosts(t, "containerd", k.hostsDir, "--containerd-version", k.tool.version)
	if err := os.WriteFile(k.settings(), []byte("timeout: 60\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	k.start(t, `version = 3
disabled_plugins = ["io.containerd.nri.v1.nri"]
[plugins."io.containerd.internal.v1.opt"]
  path = "`+k.dir+`/opt"
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "`+k.hostsDir+`"
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["`+k.dir+`/cni/bin"]
  conf_dir = "`+k.dir+`/cni/net.d"
[plugins."io.containerd.grpc.v1.cri"]
  disable_tcp_service = true
`)
	return k
}

// settings is a file of its own, so that crictl does not read the machine's.
func (k *kubelet) settings() string { return filepath.Join(k.dir, "crictl.yaml") }

func (k *kubelet) ask(t *testing.T, args ...string) string {
	t.Helper()
	address := "unix://" + k.socket()
	args = append([]string{"--config", k.settings(), "--runtime-endpoint", address, "--image-endpoint", address}, args...)
	return command(t, k.env, k.crictl.program("crictl"), args...)
}

func (k *kubelet) pull(t *testing.T, img image) {
	t.Helper()
	k.ask(t, "pull", img.reference())
}

func (k *kubelet) check(t *testing.T, img image) {
	t.Helper()
	var found struct {
		Status struct {
			ID          string
			RepoTags    []string
			RepoDigests []string
		}
	}
	answer := k.ask(t, "inspecti", "--output", "json", img.reference())
	if err := json.Unmarshal([]byte(answer), &found); err != nil {
		t.Fatalf("crictl inspecti says %s: %v", answer, err)
	}
	name := img.registry + "/" + img.repository + "@" + img.digest
	if found.Status.ID != img.platforms["amd64"].config || !slices.Contains(found.Status.RepoTags, img.reference()) || !slices.Contains(found.Status.RepoDigests, name) {
		t.Errorf("the image is %+v, want %s with the config %s", found.Status, name, img.platforms["amd64"].config)
	}
	checkBlobs(t, k.blobs(), img.content("amd64"))
}

func (k *kubelet) forget(t *testing.T) {
	t.Helper()
	k.ask(t, "rmi", "--all")
	k.checkEmpty(t)
}
