package e2e

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
)

// distribution is distribution's registry, which speaks distribution-spec 1.0.
type distribution struct {
	process *process
	host    string
}

// startDistribution serves what is kept in the folder store. More lines of its
// configuration can follow.
func (s *suite) startDistribution(t *testing.T, store string, more ...string) *distribution {
	t.Helper()
	dir := s.folder(t)
	d := &distribution{host: "127.0.0.1:" + strconv.Itoa(s.freePort(t))}
	file := filepath.Join(dir, "registry.yml")
	config := fmt.Sprintf(`version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %q}}
http: {addr: %q}
`, store, d.host) + strings.Join(more, "")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	env := append(environment(dir), "OTEL_TRACES_EXPORTER=none")
	d.process = startProcess(t, dir, env, s.tool(t, "distribution").program("registry"), "serve", file)
	d.process.waitReady(t, func() error {
		resp, err := http.Get("http://" + d.host + "/v2/") // It may want credentials.
		if err == nil {
			resp.Body.Close()
		}
		return err
	})
	return d
}

// upstream is a registry behind a transcript of all it is asked.
type upstream struct {
	*transcript
	server *http.Server
	host   string
	end    func(t *testing.T) // ends the registry
}

// registryKind is a registry that can be an upstream, with nothing in it.
type registryKind struct {
	name  string
	start func(t *testing.T, s *suite) *upstream
}

// withoutAPI and withAPI are the two kinds there are, by what they know of
// distribution-spec 1.1.
var (
	withoutAPI = registryKind{"distribution (1.0)", func(t *testing.T, s *suite) *upstream {
		return s.startUpstream(t, s.folder(t))
	}}
	withAPI = registryKind{"go-containerregistry (1.1)", func(t *testing.T, s *suite) *upstream {
		store := registry.New(registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0)))
		return s.serveUpstream(t, store, func(*testing.T) {})
	}}
)

var both = []registryKind{withoutAPI, withAPI}

// startUpstream serves what distribution's registry keeps in the folder store.
func (s *suite) startUpstream(t *testing.T, store string) *upstream {
	t.Helper()
	registry := s.startDistribution(t, store)
	return s.serveUpstream(t, reverseProxy(registry.host), func(t *testing.T) { registry.process.end(t, syscall.SIGTERM) })
}

func (s *suite) serveUpstream(t *testing.T, registry http.Handler, end func(*testing.T)) *upstream {
	t.Helper()
	u := &upstream{transcript: &transcript{next: registry}, end: end, host: "127.0.0.1:" + strconv.Itoa(s.freePort(t))}
	u.server = &http.Server{Handler: u.transcript}
	l, err := net.Listen("tcp", u.host)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = u.server.Serve(l) }() // The mirror sees where it fails.
	t.Cleanup(func() { u.server.Close() })
	return u
}

// stop ends the registry; from then on connections to it are refused.
func (u *upstream) stop(t *testing.T) {
	t.Helper()
	u.end(t)
	if err := u.server.Close(); err != nil {
		t.Error(err)
	}
	if err := answers("http://" + u.host + "/v2/"); err == nil {
		t.Fatal("the upstream still answers after it was stopped")
	}
}

// answers says whether a URL can be had.
func answers(address string) error {
	resp, err := http.Get(address)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", address, resp.Status)
	}
	return nil
}
