package e2e

import (
	"os"
	"path/filepath"
	"testing"
)

// hostsUpstreams are those of the tests that ask a runtime's library what it
// makes of what is written for it.
const hostsUpstreams = `upstreams:
  - {name: docker.io, default: true}
  - {name: ghcr.io, aliases: [alias.lan]}
  - {name: "corp.lan:5443"}
`

// hostsWritten runs "entrepot hosts RUNTIME --write FOLDER" for a mirror at
// http://mirror.lan:5000. It needs the built program, and nothing installed.
func hostsWritten(t *testing.T, runtime, folder string, more ...string) {
	t.Helper()
	dir := t.TempDir()
	configuration := filepath.Join(dir, "entrepot.yaml")
	writeFile(t, configuration, hostsUpstreams)
	args := append([]string{"hosts", runtime, "--config", configuration, "--address", "http://mirror.lan:5000", "--write", folder}, more...)
	command(t, environment(dir), setting(t, "ENTREPOT_E2E_PROGRAM"), args...)
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
