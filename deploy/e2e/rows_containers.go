package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// rowCommand is a runtime without a daemon.
type rowCommand struct {
	*machine
	command func(ref string) string // that pulls
}

func (c *rowCommand) pull(ctx context.Context, ref string) error {
	return c.does(ctx, c.command(ref))
}

func (c *rowCommand) restart(string) {}
func (c *rowCommand) stop()          {}

// containersRow is a client of containers/image. There is a policy of whose
// images are taken as their package ships it, which is nobody's to change here.
func containersRow(name, tool string, command func(m *machine) func(ref string) string) rowRuntime {
	return rowRuntime{
		name: name, tool: tool, tools: []string{tool, "runc"}, row: "CRI-O, Podman, skopeo, buildah ",
		folders: []string{"/etc/containers/registries.conf", "/etc/containers/registries.conf.d", "/etc/containers/certs.d"},
		shipped: []shipped{debiansContainers}, keep: keepContainers,
		refused: map[string]string{"IPv6": "no image name can hold an IPv6 address"},
		start:   func(m *machine) rowClient { return &rowCommand{m, command(m)} },
	}
}

// containersRows are the clients that Debian has. buildah's part is Podman's
// build, which is its library.
var containersRows = []rowRuntime{
	containersRow("Podman", "podman", func(m *machine) func(string) string {
		typed := rowRuntime{row: "CRI-O, Podman, skopeo, buildah "}.command(m.t, 2, "podman ")
		return func(ref string) string {
			return strings.Replace(strings.Replace(typed, "docker.io/library/alpine:3", ref, 1), "podman ", podmanHere, 1)
		}
	}),
	containersRow("buildah, by `podman build`", "podman", func(m *machine) func(string) string {
		return func(ref string) string {
			return fmt.Sprintf("echo FROM %s > Containerfile && %sbuild --pull-always --isolation chroot -f Containerfile .", ref, podmanHere)
		}
	}),
	containersRow("skopeo", "skopeo", func(m *machine) func(string) string {
		return func(ref string) string { return "rm -rf copied && skopeo copy docker://" + ref + " dir:copied" }
	}),
}

// podmanHere keeps its images without mounts of its own, and its events to
// itself.
const podmanHere = "podman --storage-driver vfs --cgroup-manager cgroupfs --events-backend none "

// debiansContainers is the configuration of Debian's package, as it lies on the
// machine.
var debiansContainers = shipped{"Debian's files", func(m *machine) {
	m.t.Helper()
	for _, pattern := range []string{"registries.conf", "registries.conf.d/*"} {
		found, err := filepath.Glob(filepath.Join(m.below, "etc/containers", pattern))
		if err != nil {
			m.t.Fatal(err)
		}
		for _, file := range found {
			content, err := os.ReadFile(file)
			if err != nil {
				m.t.Fatal(err)
			}
			m.put(strings.TrimPrefix(file, m.below), string(content))
		}
	}
}}

// keepContainers is a machine with mirrors, a registry that is elsewhere, one
// that is blocked, and one whose certificate the office has signed.
func keepContainers(m *machine) []meaning {
	m.put("/etc/containers/registries.conf", `# The office's. Ask before you change it.
unqualified-search-registries = ["docker.io"]

[[registry]]
location = "ghcr.io"
# the proxy has most of it
[[registry.mirror]]
location = "theirs.lan"

[[registry]]
location = "other.lan"
[[registry.mirror]]
location = "theirs.lan"
`)
	m.put("/etc/containers/registries.conf.d/50-blocked.conf", "[[registry]]\nprefix = \"alias.lan\"\nlocation = \"alias.lan\"\nblocked = true\n")
	m.put("/etc/containers/certs.d/corp.lan:5443/ca.crt", string(m.private.pem))
	return []meaning{
		{"docker.io", "here", "docker.io"},
		{"ghcr.io", "here", "theirs.lan"},
		{"other.lan", "theirs.lan", "theirs.lan"},
		{"corp.lan:5443", "here", "corp.lan:5443"},
		{aliased, nobody, nobody},
	}
}
