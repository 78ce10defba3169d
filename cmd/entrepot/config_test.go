package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

func TestConfigCheckSaysThatAFileIsRight(t *testing.T) {
	clean(t)
	t.Setenv("ENTREPOT_LISTEN", "nowhere") // the file is checked, not this machine
	file(t, "c.toml", "listen = ':7'\n[[upstreams]]\nname = 'ghcr.io'\n")
	code, stdout, stderr := entrepot(t, "config", "check", "c.toml")
	if code != 0 || stderr != "" || stdout != "c.toml is valid: 1 upstream, listening on :7\n" {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestConfigShowTellsEachValueWithItsOrigin(t *testing.T) {
	clean(t)
	t.Setenv("ENTREPOT_FRESHNESS_TAG_TTL", "90s")
	file(t, "c.yaml", "\nupstreams:\n- name: ghcr.io\n  credentials: {username: me, password_file: secret}\n")
	if err := os.WriteFile("secret", []byte("sesame"), 0o600); err != nil {
		t.Fatal(err)
	}
	const want = `listen: 127.0.0.1:7 # flag --listen
admin: 127.0.0.1:5001 # default
admin_hosts: [] # default
admin_token_file: "" # default
client_hosts: [] # default
client_networks: [] # default
client_idle: 15m # default
client_keep_alive: 10m20s # default
tls:
  cert_file: "" # default
  key_file: "" # default
cache:
  dir: /home/someone/.cache/entrepot # default
  max_size: 50GiB # default
  min_free: 1GiB # default
  memory: 256MiB # default
  scrub_rate: 0 # default
  verify_every: 1h # default
freshness:
  tag_ttl: 1m30s # env ENTREPOT_FRESHNESS_TAG_TTL
  referrers_ttl: 5m # default
  negative_ttl: 30s # default
  max_wait: 2s # default
  deleted: forget # default
offline: false # default
log:
  level: info # default
  format: text # default
pins: [] # default
upstreams:
  - name: ghcr.io # c.yaml:3
    endpoints: ['https://ghcr.io'] # default
    aliases: [] # default
    hosts: [] # default
    default: false # default
    credentials:
      username: me # c.yaml:4
      password_file: secret # c.yaml:4
      docker_config: false # default
    tls:
      ca_file: "" # default
      insecure_skip_verify: false # default
    trusted_realms: [] # default
    allow_private_redirects: false # default
    allow: ['**'] # default
    deny: [] # default
    max_requests: 32 # default
    connections_per_blob: 1 # default
    timeouts:
      connect: 5s # default
      header: 1m # default
      idle: 1m # default
    immutable_tags: [] # default
    deleted: forget # default
    referrers:
      cosign_tags: false # default
      buildkit_attestations: false # default
    offline: false # default
`
	args := []string{"config", "show", "--config", "c.yaml", "--listen", "127.0.0.1:7"}
	code, stdout, stderr := entrepot(t, args...)
	if code != 0 || stderr != "" || stdout != want {
		t.Errorf("exit %d, stderr %q, stdout\n%s", code, stderr, stdout)
	}

	code, stdout, stderr = entrepot(t, append(args, "--output", "json")...)
	var shown struct {
		Config  struct{ Listen string }
		Origins map[string]string
	}
	if err := json.Unmarshal([]byte(stdout), &shown); code != 0 || stderr != "" || err != nil {
		t.Fatalf("exit %d, stderr %q, %v", code, stderr, err)
	}
	if shown.Config.Listen != "127.0.0.1:7" || shown.Origins["listen"] != "flag --listen" || shown.Origins["upstreams[0].name"] != "c.yaml:3" {
		t.Errorf("got %+v", shown)
	}
	if strings.Contains(stdout, "sesame") {
		t.Error("the password is shown")
	}
}
