package main

import (
	"encoding/json"
	"encoding/pem"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/proxy/admin"
)

// adminOf is the admin address of a server with that configuration.
func adminOf(t *testing.T, cfg config.Config) string {
	t.Helper()
	metrics, err := admin.NewMetrics()
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(admin.New(admin.Options{Metrics: metrics, Config: newConfigResponse(cfg, cfg.Listen)}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// nobody is an address that nobody listens on.
func nobody(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestHostsGoesByTheServerThatRuns(t *testing.T) {
	clean(t)
	server := httptest.NewTLSServer(nil)
	server.Close()
	certificate := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	file(t, "c.yaml", "listen: 192.0.2.1:7000\nupstreams:\n  - name: corp.lan\n    aliases: [c.lan]\n    endpoints: [\"https://in.corp.lan\"]\n"+
		"    hosts: [corp.mirror.lan]\n    credentials: {username: me, password_file: sesame}\n    tls: {ca_file: ca.pem, insecure_skip_verify: true}\n  - name: docker.io\n    default: true\n")
	for name, content := range map[string]string{"sesame": "hush\n", "ca.pem": certificate} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, _, err := config.Load(config.Options{File: "c.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	admin := adminOf(t, cfg)
	asFile, fileOut, _ := entrepot(t, "hosts", "containerd", "--version", "2.2", "--config", "c.yaml")
	code, stdout, stderr := entrepot(t, "hosts", "containerd", "--version", "2.2", "--admin", admin)
	if code != 0 || asFile != 0 || stdout != fileOut || stderr != "using the configuration of the entrepot that answers on "+admin+"\n" {
		t.Errorf("exit %d, stderr %q, stdout\n%s\nwant\n%s", code, stderr, stdout, fileOut)
	}
	folder, err := os.Getwd()
	if err != nil || !strings.Contains(stdout, "server = \"https://in.corp.lan\"\nca = [\""+filepath.Join(folder, "ca.pem")+"\"]\nskip_verify = true\n") {
		t.Errorf("%v: what is known of the registry is not in\n%s", err, stdout)
	}
	if got, err := json.Marshal(newConfigResponse(cfg, cfg.Listen)); err != nil || strings.Contains(string(got), "sesame") || strings.Contains(string(got), `"me"`) {
		t.Errorf("%v: credentials are told: %s", err, got)
	}
	if code, stdout, stderr := entrepot(t, "hosts", "containerd", "--admin", nobody(t)); code != 1 || stdout != "" || !strings.Contains(stderr, "name its configuration file with --config") {
		t.Errorf("with nobody there: exit %d, stderr %q", code, stderr)
	}
}

func TestHostsGoesByTheUnitOfAServerThatIsStopped(t *testing.T) {
	clean(t)
	unit, err := os.ReadFile(filepath.Join("..", "..", "deploy", "systemd", "entrepot.service"))
	if err != nil {
		t.Fatal(err)
	}
	file(t, "c.yaml", "listen: 192.0.2.1:7000\nupstreams: [{name: corp.lan}]\n")
	if err := os.WriteFile("entrepot.service", []byte(strings.ReplaceAll(string(unit), "/etc/entrepot/config.yaml", "c.yaml")), 0o600); err != nil {
		t.Fatal(err)
	}
	got, source, err := findConfig(t.Context(), nobody(t), false, []string{"gone", "entrepot.service"})
	if err != nil || source != "c.yaml, which the systemd unit names" || got.listen != "192.0.2.1:7000" || len(got.upstreams) != 1 {
		t.Errorf("%v, %q, %+v", err, source, got)
	}
	if _, source, err := findConfig(t.Context(), nobody(t), false, []string{"gone"}); err != nil || source != "" {
		t.Errorf("without a unit: %v, %q", err, source)
	}
	if err := os.Remove("c.yaml"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := findConfig(t.Context(), nobody(t), false, []string{"entrepot.service"}); err == nil {
		t.Error("a file that can't be read is passed over")
	}
}
