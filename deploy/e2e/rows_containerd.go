package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// rowContainerd is a containerd as it runs on a node, told nothing: everything is
// where it is by default.
type rowContainerd struct {
	*machine
	tool    tool
	daemon  *process
	command func(ref string) string // that pulls
}

const containerdRow = "containerd: "

// containerdRows are those of an installed containerd: by CRI and by ctr.
func containerdRows(tool, version string, ships ...shipped) []rowRuntime {
	row := func(how, older string, command func(m *machine) func(ref string) string) rowRuntime {
		return rowRuntime{
			name: "containerd " + version + ", " + how, tool: tool, tools: []string{tool, "runc", "crictl"}, row: containerdRow,
			folders: []string{"/etc/containerd"}, shipped: ships, keep: keepContainerd,
			older: func(m *machine) (string, string) {
				m.put("/etc/containerd/config.toml", olderMirrors)
				return "the older `registry.mirrors`", older
			},
			start: func(m *machine) rowClient {
				c := &rowContainerd{machine: m, tool: m.tool(m.t, tool), command: command(m)}
				c.run()
				return c
			},
		}
	}
	return []rowRuntime{
		row("by CRI", "theirs.lan", func(m *machine) func(string) string {
			m.put("/etc/crictl.yaml", "runtime-endpoint: unix:///run/containerd/containerd.sock\nimage-endpoint: unix:///run/containerd/containerd.sock\ntimeout: 600\n")
			return func(ref string) string { return "crictl pull --pull-timeout 10m " + ref }
		}),
		row("by `ctr`", "docker.io", func(m *machine) func(string) string {
			typed := rowRuntime{row: containerdRow}.command(m.t, 2, "ctr ")
			if strings.HasPrefix(version, "1.") {
				typed = strings.Replace(typed, " --local", "", 1) // it knows no other way
			}
			return func(ref string) string { return strings.Replace(typed, "docker.io/library/alpine:3", ref, 1) }
		}),
	}
}

func (c *rowContainerd) run() {
	c.t.Helper()
	c.daemon = startProcess(c.t, c.dir, c.env, c.tool.program("containerd"))
	c.daemon.waitReady(c.t, func() error {
		_, _, err := c.typed("ctr version")
		return err
	})
}

func (c *rowContainerd) stop() {
	c.t.Helper()
	c.daemon.end(c.t, syscall.SIGTERM)
}

func (c *rowContainerd) restart(said string) {
	c.t.Helper()
	if !strings.Contains(said, "systemctl restart containerd") {
		return
	}
	c.stop()
	c.run()
}

func (c *rowContainerd) pull(ctx context.Context, ref string) error {
	return c.does(ctx, c.command(ref))
}

// containerdsOwn is what "containerd config default" prints.
func containerdsOwn(tool string) shipped {
	return shipped{"`containerd config default`", func(m *machine) {
		m.put("/etc/containerd/config.toml", command(m.t, m.env, m.tool(m.t, tool).program("containerd"), "config", "default"))
	}}
}

// debiansContainerd is the configuration of Debian's package, as it lies on the
// machine.
var debiansContainerd = shipped{"Debian's file", func(m *machine) {
	m.t.Helper()
	content, err := os.ReadFile(filepath.Join(m.below, "etc/containerd/config.toml"))
	if err != nil {
		m.t.Fatal(err)
	}
	m.put("/etc/containerd/config.toml", string(content))
}}

// olderMirrors can't stand beside config_path: CRI would not load, and the node
// would have no images.
const olderMirrors = `version = 2

[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]
  endpoint = ["https://theirs.lan"]
`

// keepContainerd is a node whose registries go by hosts.toml already.
func keepContainerd(m *machine) []meaning {
	m.put("/etc/containerd/config.toml", `# This node's. Ask the platform team before you change it.
version = 2

[plugins."io.containerd.grpc.v1.cri"]
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "/etc/containerd/certs.d" # all registries
`)
	m.put("/etc/containerd/certs.d/other.lan/hosts.toml", `# by the proxy
server = "https://other.lan"
[host."https://theirs.lan"]
  capabilities = ["pull", "resolve"]
`)
	m.put("/etc/containerd/certs.d/ghcr.io/hosts.toml", `server = "https://ghcr.io"

# the proxy has most of it
[host."https://theirs.lan"]
  capabilities = ["pull", "resolve"]
`)
	m.put("/etc/containerd/certs.d/corp.lan:5443/ca.crt", string(m.private.pem))
	return []meaning{
		{"docker.io", "here", "docker.io"},
		{"other.lan", "theirs.lan", "theirs.lan"},
		{"ghcr.io", "here", "theirs.lan"},
		{"corp.lan:5443", "here", "corp.lan:5443"},
	}
}
