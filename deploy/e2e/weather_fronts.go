package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// front is a reverse proxy that clients ask in entrepot's place.
type front struct {
	name, slug string
	address    string
	// small is where it keeps less of what a slow client has yet to read.
	small string
}

// tempFile is how much of an answer nginx keeps at small: as much of these layers
// as its default, 1 GiB, is of larger ones.
const tempFile = 5 << 20

var fronts = []front{
	{"nginx", "nginx", "127.0.0.1:8081", "127.0.0.1:8083"},
	{"HAProxy", "haproxy", "127.0.0.1:8082", "127.0.0.1:8082"}, // which has no such setting
}

// startFronts starts both with the configuration that Debian's packages install,
// and the least that makes them a proxy.
func (s *suite) startFronts(t *testing.T, m *mirror) {
	t.Helper()
	dir := s.folder(t)
	runs, logs, sites := filepath.Join(dir, "run"), filepath.Join(dir, "logs"), filepath.Join(dir, "nginx")
	for _, folder := range []string{filepath.Join(runs, "haproxy"), logs} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	nginx, haproxy := fronts[0], fronts[1]
	proxied := func(address, more string) string {
		return fmt.Sprintf("server {\n\tlisten %s;\n\tlocation / {\n\t\tproxy_pass http://%s;\n\t\t%s\n\t}\n}\n", address, m.address, more)
	}
	writeFile(t, filepath.Join(sites, "entrepot.conf"), proxied(nginx.address, "")+proxied(nginx.small, fmt.Sprintf("proxy_max_temp_file_size %d;", tempFile)))
	proxy := filepath.Join(dir, "entrepot.cfg")
	writeFile(t, proxy, fmt.Sprintf("frontend clients\n\tbind %s\n\tdefault_backend entrepot\nbackend entrepot\n\tserver entrepot %s\n", haproxy.address, m.address))
	for from, to := range map[string]string{runs: "/run", logs: "/var/log/nginx", sites: "/etc/nginx/conf.d"} {
		if err := syscall.Mount(from, to, "", syscall.MS_BIND, ""); err != nil {
			t.Fatalf("mount over %s: %v", to, err)
		}
	}
	env := environment(dir)
	for _, p := range []*process{
		startProcess(t, dir, env, s.tool(t, "nginx").program("nginx"), "-g", "daemon off;"),
		startProcess(t, dir, env, s.tool(t, "haproxy").program("haproxy"), "-db", "-f", "/etc/haproxy/haproxy.cfg", "-f", proxy),
	} {
		p.waitReady(t, func() error {
			for _, f := range fronts {
				if !strings.HasPrefix(p.name, f.slug) {
					continue
				}
				for _, address := range []string{f.address, f.small} {
					if err := answers("http://" + address + "/v2/"); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
}
