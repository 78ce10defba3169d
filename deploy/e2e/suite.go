// Package e2e drives real clients through the built program, in front of real
// registries. Run it with deploy/e2e/run, which installs the clients.
package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// suite is what the tests share: the program, the installed clients, and a
// registry's store with images in it.
type suite struct {
	ports    atomic.Int32 // given out by freePort
	entrepot string       // the built program
	work     string       // below which everything is kept; short, for sockets' paths
	tools    map[string]tool
	store    string // of distribution's registry; only read by the tests
	images   []image
}

// tool is an installed client.
type tool struct{ name, version, folder string }

func (t tool) program(name string) string { return filepath.Join(t.folder, "bin", name) }
func (t tool) bin() string                { return filepath.Join(t.folder, "bin") }

func newSuite(t *testing.T) *suite {
	t.Helper()
	s := readSuite(t)
	s.store = s.folder(t)
	registry := s.startDistribution(t, s.store)
	s.images = []image{
		s.push(t, registry.host, "docker.io", "library/e2e"),
		s.push(t, registry.host, "registry.example", "team/e2e"),
	}
	registry.process.end(t, syscall.SIGTERM)
	return s
}

// readSuite is the suite without a store.
func readSuite(t *testing.T) *suite {
	t.Helper()
	s := &suite{tools: map[string]tool{}}
	s.entrepot = setting(t, "ENTREPOT_E2E_PROGRAM")
	s.work = setting(t, "ENTREPOT_E2E_WORK")
	for line := range strings.Lines(setting(t, "ENTREPOT_E2E_INSTALLED")) {
		columns := strings.Split(strings.TrimSpace(line), "\t")
		if len(columns) != 3 {
			t.Fatalf("%q is not the name, version and folder of a client", line)
		}
		s.tools[columns[0]] = tool{columns[0], columns[1], columns[2]}
	}
	return s
}

func setting(t *testing.T, key string) string {
	t.Helper()
	value := os.Getenv(key)
	if value == "" {
		t.Fatalf("%s is not set: run deploy/e2e/run", key)
	}
	return value
}

func (s *suite) tool(t *testing.T, name string) tool {
	t.Helper()
	found, ok := s.tools[name]
	if !ok {
		t.Fatalf("%s is not installed: add a row to deploy/e2e/install", name)
	}
	return found
}

// version is that of an installed tool, or of a library by its module's path.
func (s *suite) version(t *testing.T, tool string) string {
	t.Helper()
	if !strings.Contains(tool, "/") {
		return s.tool(t, tool).version
	}
	out := command(t, os.Environ(), "go", "list", "-m", "-f", "{{.Version}}", tool)
	return strings.TrimPrefix(strings.TrimSpace(out), "v")
}

// folder is a new one, gone after the test with whatever was mounted in it.
func (s *suite) folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(s.work, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unmountBelow(t, dir)
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// inMemory is a folder that is never written to a disk: Docker waits for that at
// each of a pull's small steps.
func (s *suite) inMemory(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(s.folder(t), "m")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	return dir
}

func unmountBelow(t *testing.T, dir string) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Error(err)
		return
	}
	for line := range strings.Lines(string(mounts)) {
		columns := strings.Fields(line)
		if len(columns) < 2 || !strings.HasPrefix(columns[1], dir+"/") {
			continue
		}
		if err := syscall.Unmount(columns[1], syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", columns[1], err)
		}
	}
}
