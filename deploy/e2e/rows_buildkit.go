package e2e

import (
	"context"
	"fmt"
	"strings"
	"syscall"
)

// rowBuildKit is a buildkitd as root runs it: everything is where it is by
// default.
type rowBuildKit struct {
	*machine
	daemon *process
}

var buildkitRow = rowRuntime{
	name: "BuildKit", tool: "buildkit", tools: []string{"buildkit", "runc"}, row: "BuildKit ",
	folders: []string{"/etc/buildkit"}, shipped: []shipped{{"no file", func(m *machine) { m.clear("/etc/buildkit") }}}, keep: keepBuildKit,
	start: func(m *machine) rowClient {
		b := &rowBuildKit{machine: m}
		b.run()
		return b
	},
}

func (b *rowBuildKit) run() {
	b.t.Helper()
	b.daemon = startProcess(b.t, b.dir, b.env, b.tool(b.t, "buildkit").program("buildkitd"), "--oci-worker-net", "host", "--oci-worker-snapshotter", "native")
	b.daemon.waitReady(b.t, func() error {
		_, _, err := b.typed("buildctl debug workers")
		return err
	})
}

func (b *rowBuildKit) stop() {
	b.t.Helper()
	b.daemon.end(b.t, syscall.SIGTERM)
}

func (b *rowBuildKit) restart(said string) {
	b.t.Helper()
	if strings.Contains(said, "restart buildkit") {
		b.stop()
		b.run()
	}
}

// pull builds what begins from an image, and takes all of it along.
func (b *rowBuildKit) pull(ctx context.Context, ref string) error {
	return b.does(ctx, fmt.Sprintf("mkdir -p build && echo FROM %s > build/Dockerfile && "+
		"buildctl build --frontend dockerfile.v0 --local context=build --local dockerfile=build --output type=oci,dest=/dev/null", ref))
}

// keepBuildKit is a builder with a proxy for Docker Hub, a registry that speaks
// plain HTTP, and one whose certificate the office has signed.
func keepBuildKit(m *machine) []meaning {
	m.put("/etc/buildkit/buildkitd.toml", `# This builder's.
[log]
  format = "text"

[worker.oci]
  gc = false

[registry."ghcr.io"]
  mirrors = ["theirs.lan"] # most of it

[registry."other.lan:5080"]
  http = true

[registry."corp.lan:5443"]
  ca = ["/etc/office.crt"]
`)
	return []meaning{
		{"docker.io", "here", "docker.io"},
		{"ghcr.io", "here", "theirs.lan"},
		{"other.lan:5080", "other.lan:5080", "other.lan:5080"},
		{"corp.lan:5443", "here", "corp.lan:5443"},
	}
}
