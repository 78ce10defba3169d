package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// containerd is a containerd of its own with its ctr.
type containerd struct {
	tool          tool
	dir, hostsDir string
	env           []string
	namespace     string
	pullFlags     []string
}

// containerdConfig leaves out Kubernetes' side, and keeps the rest in one
// folder.
func containerdConfig(version, dir string) string {
	if strings.HasPrefix(version, "1.") {
		return `version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[plugins."io.containerd.internal.v1.opt"]
  path = "` + dir + `/opt"
`
	}
	return `version = 3
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.nri.v1.nri"]
[plugins."io.containerd.internal.v1.opt"]
  path = "` + dir + `/opt"
`
}

// startContainerd starts the containerd that is installed as toolName. Its
// hosts.toml files are those that entrepot makes with hostsFlags.
func (s *suite) startContainerd(t *testing.T, m *mirror, toolName string, hostsFlags, pullFlags []string) client {
	t.Helper()
	c := s.newContainerd(t, toolName)
	c.pullFlags = append(pullFlags, "--hosts-dir", c.hostsDir)
	m.hosts(t, "containerd", c.hostsDir, hostsFlags...)
	c.start(t, containerdConfig(c.tool.version, c.dir))
	return c
}

// newContainerd is a containerd that is yet to be started.
func (s *suite) newContainerd(t *testing.T, toolName string) *containerd {
	t.Helper()
	return s.containerdIn(t, s.folder(t), toolName)
}

// containerdIn is one that keeps everything in a folder.
func (s *suite) containerdIn(t *testing.T, dir, toolName string) *containerd {
	t.Helper()
	c := &containerd{tool: s.tool(t, toolName), dir: dir, namespace: "e2e"}
	c.hostsDir = filepath.Join(c.dir, "certs.d")
	c.env = environment(c.dir, c.tool.bin(), s.tool(t, "runc").bin())
	return c
}

func (c *containerd) start(t *testing.T, config string) {
	t.Helper()
	file := filepath.Join(c.dir, "config.toml")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	daemon := startProcess(t, c.dir, c.env, c.tool.program("containerd"), "--config", file,
		"--root", filepath.Join(c.dir, "root"), "--state", filepath.Join(c.dir, "state"), "--address", c.socket())
	daemon.waitReady(t, func() error {
		_, _, err := try(t.Context(), "", c.env, c.tool.program("ctr"), "--address", c.socket(), "version")
		return err
	})
}

func (c *containerd) socket() string { return filepath.Join(c.dir, "sock") }

func (c *containerd) blobs() string {
	return filepath.Join(c.dir, "root", "io.containerd.content.v1.content", "blobs", "sha256")
}

func (c *containerd) ctr(t *testing.T, args ...string) string {
	t.Helper()
	args = append([]string{"--address", c.socket(), "--namespace", c.namespace}, args...)
	return command(t, c.env, c.tool.program("ctr"), args...)
}

func (c *containerd) pull(t *testing.T, img image) {
	t.Helper()
	args := append([]string{"images", "pull"}, c.pullFlags...)
	c.ctr(t, append(args, img.reference())...)
}

func (c *containerd) check(t *testing.T, img image) {
	t.Helper()
	listed := c.ctr(t, "images", "ls", "name=="+img.reference())
	if !strings.Contains(listed, img.digest) {
		t.Errorf("ctr lists\n%s\nwant %s", listed, img.digest)
	}
	checkBlobs(t, c.blobs(), img.content("amd64"))
}

func (c *containerd) run(t *testing.T, img image) string {
	t.Helper()
	// runc keeps the containers of every containerd in one place.
	return c.ctr(t, "run", "--rm", img.reference(), "e2e-"+filepath.Base(c.dir))
}

func (c *containerd) forget(t *testing.T) {
	t.Helper()
	names := strings.Fields(c.ctr(t, "images", "ls", "-q"))
	c.ctr(t, append([]string{"images", "rm", "--sync"}, names...)...)
	c.checkEmpty(t)
}

// checkEmpty checks that nothing is left of what was pulled.
func (c *containerd) checkEmpty(t *testing.T) {
	t.Helper()
	left, err := os.ReadDir(c.blobs())
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Fatalf("containerd still holds %d blobs", len(left))
	}
}
