package admission

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

// request returns a request for a host that came in on a local address.
func request(address, host string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Host = host
	return r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.ParseIP(address), Port: 5001}))
}

// FuzzHosts lets nothing in but what is loopback by itself, configured, or
// the address that was connected to.
func FuzzHosts(f *testing.F) {
	for _, host := range []string{"localhost:5001", "127.0.0.1", "[::1]:5001", "[fe80::1%25lo]:1", "mirror.lan", "192.0.2.7", "::1", "[::ffff:7f00:1]", "127.0.0.1:5001:5001", "[localhost]", "localhost.:1"} {
		f.Add(host)
	}
	hosts := NewHosts([]string{"mirror.lan", "192.0.2.7"})
	f.Fuzz(func(t *testing.T, host string) {
		if !hosts.Allow(request("198.51.100.3", host)) {
			return
		}
		bare := strings.ToLower(host)
		if name, _, err := net.SplitHostPort(bare); err == nil {
			bare = name
		}
		bare = strings.TrimSuffix(bare, ".")
		if bare == "localhost" || bare == "mirror.lan" {
			return
		}
		ip, err := netip.ParseAddr(strings.Trim(bare, "[]"))
		if ip = ip.Unmap(); err != nil || !ip.IsLoopback() && ip.String() != "192.0.2.7" && ip.String() != "198.51.100.3" {
			t.Errorf("%q is let in", host)
		}
	})
}
