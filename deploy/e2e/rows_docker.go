package e2e

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"syscall"
)

// rowDocker is a dockerd as Debian's package and others run it: everything is
// where it is by default.
type rowDocker struct {
	*machine
	program string
	flags   []string
	ready   func() error
	pulled  func(ctx context.Context, ref string) error
	daemon  *process
}

// run starts it without a network of its own for containers, which a pull needs
// not.
func (d *rowDocker) run() {
	d.t.Helper()
	d.daemon = startProcess(d.t, d.dir, d.env, d.program, append([]string{"--iptables=false", "--bridge=none"}, d.flags...)...)
	d.daemon.waitReady(d.t, d.ready)
}

func (d *rowDocker) stop() {
	d.t.Helper()
	d.daemon.end(d.t, syscall.SIGTERM)
}

func (d *rowDocker) restart(said string) {
	d.t.Helper()
	switch {
	case strings.Contains(said, "systemctl restart docker"):
		d.stop()
		d.run()
		return
	case !strings.Contains(said, "systemctl reload docker"):
		return
	}
	done := d.reloaded()
	if err := d.daemon.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		d.t.Fatal(err)
	}
	d.daemon.waitReady(d.t, func() error {
		if d.reloaded() == done {
			return errors.New("it has not said that it has reloaded")
		}
		return nil
	})
}

// reloaded is how often the daemon has said so.
func (d *rowDocker) reloaded() int {
	return strings.Count(tail(d.daemon.log, 1<<20), "Reloaded configuration")
}

func (d *rowDocker) pull(ctx context.Context, ref string) error { return d.pulled(ctx, ref) }

// noFile is Docker's own configuration, which is none.
var noFile = shipped{"no file", func(m *machine) { m.clear("/etc/docker") }}

// dockerTwenty is Docker before 29, of Debian.
var dockerTwenty = rowRuntime{
	name: "Docker before 29", tool: "docker", tools: []string{"docker", "containerd16", "runc"}, row: "Docker ",
	folders: []string{"/etc/docker"}, shipped: []shipped{noFile}, keep: keepDocker,
	start: func(m *machine) rowClient {
		d := &rowDocker{machine: m, program: m.tool(m.t, "docker").program("dockerd")}
		d.ready = func() error {
			_, _, err := m.typed("docker version")
			return err
		}
		d.pulled = func(ctx context.Context, ref string) error { return m.does(ctx, "docker pull "+ref) }
		d.run()
		return d
	},
}

// dockerNewest keeps its images in containerd's store. What is installed does not
// say its version.
var dockerNewest = rowRuntime{
	name: "Docker 29", tool: "moby", tools: []string{"moby", "docker", "containerd", "runc"}, row: "Docker ", told: []string{"--version", "29"},
	folders: []string{"/etc/docker"}, shipped: []shipped{noFile}, keep: keepDocker,
	start: func(m *machine) rowClient {
		// Debian's command line is too old for it.
		asked := &moby{}
		asked.reach(m.t, "/run/docker.sock")
		d := &rowDocker{machine: m, program: m.tool(m.t, "moby").program("dockerd"), flags: []string{"--ip6tables=false"}}
		d.ready = func() error {
			_, err := asked.try(m.t.Context(), http.MethodGet, "/_ping", nil)
			return err
		}
		d.pulled = func(ctx context.Context, ref string) error {
			i := strings.LastIndex(ref, ":")
			return asked.tryPull(ctx, ref[:i], ref[i+1:])
		}
		d.run()
		return d
	},
}

// keepDocker is a machine with a proxy for Docker Hub, a registry that speaks
// plain HTTP, and one whose certificate the office has signed.
func keepDocker(m *machine) []meaning {
	m.put("/etc/docker/daemon.json", `{
	"log-opts": {"max-size": "10m"},
	"registry-mirrors": ["https://theirs.lan"],
	"insecure-registries": ["other.lan:5080"],
	"live-restore": true
}
`)
	m.put("/etc/docker/certs.d/corp.lan:5443/ca.crt", string(m.private.pem))
	return []meaning{
		{"docker.io", "here", "theirs.lan"},
		{"other.lan:5080", "other.lan:5080", "other.lan:5080"},
		{"corp.lan:5443", "here", "corp.lan:5443"},
	}
}
