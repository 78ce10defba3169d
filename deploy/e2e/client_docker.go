package e2e

import (
	"path/filepath"
	"strings"
	"testing"
)

// docker is a dockerd of its own with its command line. Its registry-mirrors
// stand for docker.io only.
type docker struct {
	tool tool
	dir  string
	env  []string
}

func (s *suite) startDocker(t *testing.T, m *mirror) client {
	t.Helper()
	d := &docker{tool: s.tool(t, "docker"), dir: s.folder(t)}
	// dockerd starts the containerd that is first in its path.
	d.env = environment(d.dir, d.tool.bin(), s.tool(t, "containerd16").bin(), s.tool(t, "runc").bin())
	// Both forms, of which it has to ignore the one that it does not know.
	etc := filepath.Join(d.dir, "etc")
	m.hosts(t, "docker", etc)
	daemon := startDockerd(t, d.dir, d.env, etc, d.tool.program("dockerd"),
		"--data-root", filepath.Join(d.dir, "root"), "--exec-root", filepath.Join(d.dir, "exec"),
		"--pidfile", filepath.Join(d.dir, "pid"), "-H", d.host(),
		"--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver", "overlay2")
	daemon.waitReady(t, func() error {
		_, _, err := try(t.Context(), "", d.env, d.tool.program("docker"), "-H", d.host(), "version")
		return err
	})
	return d
}

// startDockerd starts a dockerd that sees a folder as /etc/docker: for certs.d it
// looks nowhere else.
func startDockerd(t *testing.T, dir string, env []string, etc, program string, args ...string) *process {
	t.Helper()
	return startProcess(t, dir, env, "/usr/bin/unshare", append([]string{"--mount", "--", "/bin/sh", "-c",
		`mkdir -p /etc/docker && mount --bind "$1" /etc/docker && shift && exec "$@"`, "sh", etc, program}, args...)...)
}

func (d *docker) host() string { return "unix://" + filepath.Join(d.dir, "sock") }

func (d *docker) docker(t *testing.T, args ...string) string {
	t.Helper()
	return command(t, d.env, d.tool.program("docker"), append([]string{"-H", d.host()}, args...)...)
}

func (d *docker) pull(t *testing.T, img image) {
	t.Helper()
	d.docker(t, "pull", img.reference())
}

func (d *docker) check(t *testing.T, img image) {
	t.Helper()
	checkInspected(t, d.docker(t, "image", "inspect", img.reference()), img, img.platforms["amd64"].config)
}

func (d *docker) run(t *testing.T, img image) string {
	t.Helper()
	return d.docker(t, "run", "--rm", "--network=none", img.reference())
}

func (d *docker) forget(t *testing.T) {
	t.Helper()
	ids := strings.Fields(d.docker(t, "images", "-aq"))
	d.docker(t, append([]string{"rmi", "-f"}, ids...)...)
	if left := d.docker(t, "images", "-aq"); left != "" {
		t.Fatalf("Docker still holds %s", left)
	}
}
