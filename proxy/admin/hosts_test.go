package admin

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/proxy/retention"
)

// untouched is a Cache that serves an inventory and panics when asked for
// anything else.
type untouched struct{ Cache }

func (untouched) Inventory(context.Context) (retention.Inventory, error) {
	return retention.Inventory{}, nil
}

func newAdmin(t testing.TB, hosts ...string) http.Handler {
	m, err := NewMetrics()
	if err != nil {
		t.Fatal(err)
	}
	return New(Options{Metrics: m, Cache: untouched{}, Ready: func() error { return nil }, Hosts: hosts})
}

// requestTo returns a request for a host that came in on a local address.
func requestTo(address, method, host, path string) *http.Request {
	r := httptest.NewRequest(method, path, nil)
	r.Host, r.RemoteAddr = host, "127.0.0.1:40000"
	return r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.ParseIP(address), Port: 5001}))
}

func TestAdminAnswersUnderItsOwnHostsOnly(t *testing.T) {
	admin := newAdmin(t, "mirror.lan", "192.0.2.7", "fd00::7", "[fd00::8]", "Entrepot.Example.com.")
	for name, c := range map[string]struct {
		local string // 127.0.0.1 where it does not matter
		hosts []string
		want  int
	}{
		"loopback":                    {"", []string{"localhost", "localhost:5001", "LOCALHOST:1", "localhost.", "127.0.0.1", "127.0.0.1:5001", "127.9.8.7:80", "[::1]", "[::1]:5001", "[::ffff:127.0.0.1]:5001"}, 200},
		"configured":                  {"", []string{"mirror.lan", "mirror.lan:5001", "MIRROR.lan:80", "mirror.lan.", "192.0.2.7:5001", "[fd00::7]:5001", "[fd00::8]", "entrepot.example.com"}, 200},
		"where it was connected to":   {"198.51.100.3", []string{"198.51.100.3", "198.51.100.3:5001", "[::ffff:198.51.100.3]"}, 200},
		"the same over IPv6":          {"fd00::1", []string{"[fd00::1]", "[fd00::1]:5001", "[fd00:0::0:1]:80"}, 200},
		"an IPv4 address on a socket": {"::ffff:198.51.100.3", []string{"198.51.100.3:5001"}, 200},
		"names that others give out":  {"", []string{"evil.example", "evil.example:5001", "localhost.evil.example", "mirror.lan.evil.example", "evil-mirror.lan", "127.0.0.1.evil.example", "xlocalhost", "sub.localhost"}, 421},
		"addresses of others":         {"198.51.100.3", []string{"198.51.100.4", "192.0.2.8:5001", "[fd00::9]", "0.0.0.0:5001", "[::]:5001"}, 421},
		"none":                        {"", []string{"", ":5001", "[", "]", "[]", "[::1", "::1]:5001", "127.1", "2130706433", "0x7f.1", "127.0.0.1 evil", "user@localhost"}, 421},
	} {
		t.Run(name, func(t *testing.T) {
			if c.local == "" {
				c.local = "127.0.0.1"
			}
			for _, host := range c.hosts {
				paths := []string{"/cache"}
				if c.want != http.StatusOK {
					paths = append(paths, "/pins", "/", "/metrics/", "//healthz", "/healthz/../cache")
				}
				for _, path := range paths {
					w := httptest.NewRecorder()
					if admin.ServeHTTP(w, requestTo(c.local, http.MethodGet, host, path)); w.Code != c.want {
						t.Errorf("%q %s: %d %s", host, path, w.Code, w.Body)
					}
				}
				for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
					w := httptest.NewRecorder()
					if admin.ServeHTTP(w, requestTo(c.local, http.MethodGet, host, path)); w.Code != http.StatusOK {
						t.Errorf("%q %s: %d", host, path, w.Code)
					}
				}
			}
		})
	}
}

func TestAPageWhoseNameIsReboundPurgesAndReadsNothing(t *testing.T) {
	server := httptest.NewServer(newAdmin(t)) // any other call of the cache panics
	defer server.Close()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ method, path string }{
		{"POST", "/cache/purge"}, {"POST", "/pins"}, {"DELETE", "/pins"}, {"POST", "/cache/scrub?rate=0"}, {"GET", "/cache"}, {"GET", "/pins"}, {"OPTIONS", "/cache/purge"},
	} {
		req, err := http.NewRequest(c.method, server.URL+c.path, strings.NewReader(`{"upstream":"docker.io","repository":"library/alpine","ref":"3"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = net.JoinHostPort("evil.example", port)
		req.Header.Set("Origin", "http://"+req.Host)
		req.Header.Set("Sec-Fetch-Site", "same-origin")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var said Error
		err = json.NewDecoder(resp.Body).Decode(&said)
		resp.Body.Close()
		if resp.StatusCode != http.StatusMisdirectedRequest || err != nil || said.Kind != "wrong_host" || !strings.Contains(said.Message, "admin_hosts") {
			t.Errorf("%s %s: %s %+v, %v", c.method, c.path, resp.Status, said, err)
		}
	}
}

func TestUnderALoopbackNameAnotherOriginIsStillRefused(t *testing.T) {
	r := requestTo("127.0.0.1", http.MethodPost, "localhost:5001", "/cache/purge")
	r.Header.Set("Origin", "http://evil.example")
	w := httptest.NewRecorder()
	if newAdmin(t).ServeHTTP(w, r); w.Code != http.StatusForbidden {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
