package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// mirror is a running entrepot.
type mirror struct {
	program, dir   string
	address, admin string
	upstream       *upstream
	process        *process
	settings       string   // of each upstream, in YAML
	env            []string // beside that of every program
	names          string   // a file that it sees as /etc/hosts; empty: it sees the machine's
}

// startMirror starts entrepot in front of one registry, which it knows as
// docker.io (its default) and as registry.example.
func (s *suite) startMirror(t *testing.T, up *upstream, tagTTL time.Duration) *mirror {
	t.Helper()
	m := s.newMirror(t, up)
	m.configure(t, tagTTL)
	m.start(t)
	return m
}

// newMirror is an entrepot that is yet to be configured and started.
func (s *suite) newMirror(t *testing.T, up *upstream) *mirror {
	t.Helper()
	return &mirror{
		program:  s.entrepot,
		dir:      s.folder(t),
		address:  "127.0.0.1:" + strconv.Itoa(s.freePort(t)),
		admin:    "127.0.0.1:" + strconv.Itoa(s.freePort(t)),
		upstream: up,
	}
}

func (m *mirror) config() string { return filepath.Join(m.dir, "entrepot.yaml") }

func (m *mirror) configure(t *testing.T, tagTTL time.Duration) {
	t.Helper()
	config := fmt.Sprintf(`listen: %[1]s
admin: %[2]s
cache:
  dir: %[3]s
freshness:
  tag_ttl: %[4]s
  negative_ttl: %[7]s
upstreams:
  - name: docker.io
    endpoints: ["http://%[5]s"]
    default: true
%[6]s
  - name: registry.example
    endpoints: ["http://%[5]s"]
%[6]s
`, m.address, m.admin, filepath.Join(m.dir, "cache"), tagTTL, m.upstream.host, m.settings, min(tagTTL, 30*time.Second))
	if err := os.WriteFile(m.config(), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (m *mirror) start(t *testing.T) {
	t.Helper()
	started := []string{m.program, "serve", "--config", m.config()}
	if m.names != "" {
		started = append([]string{"/usr/bin/unshare", "--mount", "--", "/bin/sh", "-c", `mount --bind "$1" /etc/hosts && shift && exec "$@"`, "sh", m.names}, started...)
	}
	m.process = startProcess(t, m.dir, slices.Concat(environment(m.dir), m.env), started[0], started[1:]...)
	m.process.waitReady(t, func() error { return answers("http://" + m.admin + "/readyz") })
}

// stop ends entrepot as a service manager does, which has to be a success.
func (m *mirror) stop(t *testing.T) {
	t.Helper()
	m.process.end(t, syscall.SIGTERM)
	if m.process.err != nil {
		t.Errorf("entrepot did not stop in good order: %v", m.process.err)
	}
}

// crash is kill -9.
func (m *mirror) crash(t *testing.T) {
	t.Helper()
	m.process.end(t, syscall.SIGKILL)
}

// hosts writes a runtime's configuration, as entrepot makes it, into a folder.
func (m *mirror) hosts(t *testing.T, runtime, folder string, more ...string) {
	t.Helper()
	args := append([]string{"hosts", runtime, "--config", m.config(), "--write", folder}, more...)
	command(t, environment(m.dir), m.program, args...)
}
