package e2e

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// distribution is distribution's registry, which speaks distribution-spec 1.0.
type distribution struct {
	process *process
	host    string
}

// startDistribution serves what is kept in the folder store.
func (s *suite) startDistribution(t *testing.T, store string) *distribution {
	t.Helper()
	dir := s.folder(t)
	d := &distribution{host: "127.0.0.1:" + strconv.Itoa(s.freePort(t))}
	file := filepath.Join(dir, "registry.yml")
	config := fmt.Sprintf(`version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %q}}
http: {addr: %q}
`, store, d.host)
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	env := append(environment(dir), "OTEL_TRACES_EXPORTER=none")
	d.process = startProcess(t, dir, env, s.tool(t, "distribution").program("registry"), "serve", file)
	d.process.waitReady(t, func() error { return answers("http://" + d.host + "/v2/") })
	return d
}

// upstream is a registry behind a transcript of all it is asked.
type upstream struct {
	*transcript
	registry *distribution
	server   *http.Server
	host     string
}

func (s *suite) startUpstream(t *testing.T) *upstream {
	t.Helper()
	registry := s.startDistribution(t, s.store)
	u := &upstream{
		registry:   registry,
		transcript: newTranscript(&url.URL{Scheme: "http", Host: registry.host}),
		host:       "127.0.0.1:" + strconv.Itoa(s.freePort(t)),
	}
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
	u.registry.process.end(t, syscall.SIGTERM)
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
