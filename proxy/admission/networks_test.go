package admission

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
)

// from returns a request that comes from an address and port.
func from(address string, header ...string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/", nil)
	r.RemoteAddr = address
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

func TestNetworks(t *testing.T) {
	some := Networks{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for name, c := range map[string]struct {
		of   Networks
		r    *http.Request
		want bool
	}{
		"no network means all":                        {nil, from("192.0.2.1:1"), true},
		"within one":                                  {some, from("10.1.2.3:1"), true},
		"within another":                              {some, from("[fd00::1]:1"), true},
		"IPv4 on a socket of IPv6":                    {some, from("[::ffff:10.1.2.3]:1"), true},
		"with a zone":                                 {some, from("[fd00::1%eth0]:1"), true},
		"outside":                                     {some, from("192.0.2.1:1"), false},
		"loopback, which is not listed":               {some, from("127.0.0.1:1"), false},
		"what X-Forwarded-For claims":                 {some, from("192.0.2.1:1", "X-Forwarded-For", "10.1.2.3"), false},
		"what Forwarded claims":                       {some, from("192.0.2.1:1", "Forwarded", "for=10.1.2.3"), false},
		"within, whatever X-Forwarded-For says":       {some, from("10.1.2.3:1", "X-Forwarded-For", "192.0.2.1"), true},
		"an address that nobody knows":                {some, from("@"), false},
		"an address that nobody knows, where all may": {nil, from("@"), true},
	} {
		if got := c.of.Allow(c.r); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
