package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var buildkitKinds = []kind{
	{name: "images that builds begin from", client: "BuildKit", tool: "buildkit", push: pushBase, take: buildFromBase},
}

// buildkit is a buildkitd of its own with its buildctl.
type buildkit struct {
	tool tool
	dir  string
	env  []string
}

// startBuildKit starts one that is configured by a file.
func (s *suite) startBuildKit(t *testing.T, config string) *buildkit {
	t.Helper()
	b := &buildkit{tool: s.tool(t, "buildkit"), dir: s.folder(t)}
	b.env = environment(b.dir, b.tool.bin(), s.tool(t, "runc").bin())
	daemon := startProcess(t, b.dir, b.env, b.tool.program("buildkitd"), "--config", config,
		"--root", filepath.Join(b.dir, "root"), "--addr", b.address(), "--otel-socket-path", filepath.Join(b.dir, "otel"),
		"--oci-worker", "true", "--containerd-worker", "false", "--cdi-disabled")
	daemon.waitReady(t, func() error {
		_, _, err := try(t.Context(), "", b.env, b.tool.program("buildctl"), "--addr", b.address(), "debug", "workers")
		return err
	})
	return b
}

func (b *buildkit) address() string { return "unix://" + filepath.Join(b.dir, "sock") }

// build builds what a folder has a Dockerfile for, without a network.
func (b *buildkit) build(t *testing.T, folder string, more ...string) {
	t.Helper()
	args := []string{"--addr", b.address(), "build", "--progress", "plain", "--frontend", "dockerfile.v0",
		"--opt", "force-network-mode=none", "--local", "context=" + folder, "--local", "dockerfile=" + folder}
	command(t, b.env, b.tool.program("buildctl"), append(args, more...)...)
}

// pushBase pushes an image that others are built from.
func pushBase(e *errand) error {
	img := e.suite.push(e.t, e.host, "registry.example", "builds/base")
	e.notes["greeting"] = img.greeting + "\n"
	e.notes["layers"] = strings.Join(img.platforms["amd64"].layers, " ")
	return nil
}

// buildFromBase builds with a BuildKit that holds nothing and knows the mirror
// by what entrepot has written. What it builds has the base's layers as they
// are, and files that were made by running the base's program.
func buildFromBase(e *errand) error {
	into, err := e.empty("taken")
	if err != nil {
		return err
	}
	context := filepath.Join(e.dir, "context")
	for file, content := range map[string]string{
		"Dockerfile": "FROM registry.example/builds/base:1\n" + `RUN ["/bin/busybox", "cp", "/etc/greeting", "/said"]` + "\nCOPY note /note\n",
		"note":       "built from it",
	} {
		if _, err := e.write(filepath.Join("context", file), content); err != nil {
			return err
		}
	}
	root, layout := filepath.Join(into, "root"), filepath.Join(into, "layout")
	passed := e.t.Run("buildkit", func(t *testing.T) {
		e.mirror.hosts(t, "buildkit", into)
		b := e.suite.startBuildKit(t, filepath.Join(into, "buildkitd.toml"))
		b.build(t, context, "--output", "type=local,dest="+root, "--output", "type=oci,tar=false,dest="+layout)
		checkBlobs(t, filepath.Join(layout, "blobs", "sha256"), strings.Fields(e.notes["layers"]))
	})
	if !passed {
		return errors.New("BuildKit does not build")
	}
	return errors.Join(
		same(filepath.Join(root, "etc", "greeting"), e.notes["greeting"]),
		same(filepath.Join(root, "said"), e.notes["greeting"]),
		same(filepath.Join(root, "note"), "built from it"),
		sameProgram(e, root),
	)
}

// sameProgram compares the largest file of the base with the one it was made of.
func sameProgram(e *errand, root string) error {
	program := filepath.Join("bin", "busybox")
	content, err := os.ReadFile(filepath.Join(e.suite.tool(e.t, "rootfs-amd64").folder, "busybox-static", program))
	if err != nil {
		return err
	}
	return same(filepath.Join(root, program), string(content))
}
