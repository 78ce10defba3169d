package proxy

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/admission"
)

// everyRoute has a path for each kind of request, and some that are none.
func everyRoute() []string {
	const digest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
	return []string{"/v2/", "/v2", "/v2/app/manifests/1", "/v2/app/manifests/" + digest, "/v2/app/blobs/" + digest, "/v2/app/tags/list", "/v2/app/referrers/" + digest, "/", "/v1/x", "/v2/nobody.example/app/manifests/1"}
}

func TestClientsOfOtherNetworksAreRefusedOnEveryRoute(t *testing.T) {
	for networks, answered := range map[string]bool{"192.0.2.0/24": false, "127.0.0.0/8": true} {
		f := newFace(t, manifests(ocispec.MediaTypeImageIndex, []byte("{}"), nil), func(o *Options, _ *httptest.Server) {
			o.Networks = admission.Networks{netip.MustParsePrefix(networks)}
		})
		for _, path := range everyRoute() {
			for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
				if !answered {
					got := f.do(method, path, "X-Forwarded-For", "192.0.2.1", "Forwarded", "for=192.0.2.1")
					if got.status != http.StatusForbidden || method == http.MethodGet && (got.code() != codeDenied || !strings.Contains(string(got.body), "client_networks")) {
						t.Errorf("%s %s: %d %s", method, path, got.status, got.body)
					}
				}
			}
		}
		if answered {
			if got := f.do(http.MethodGet, "/v2/app/manifests/1", "X-Forwarded-For", "192.0.2.1"); got.status != http.StatusOK {
				t.Errorf("%d %s", got.status, got.body)
			}
		}
	}
}

func TestAnUnknownHostIsMisdirectedOnEveryRoute(t *testing.T) {
	known := admission.NewHosts([]string{"mirror.lan", "hub.test", "[fd00::1]:5000"})
	f := newFace(t, manifests(ocispec.MediaTypeImageIndex, []byte("{}"), nil), func(o *Options, _ *httptest.Server) { o.Hosts = &known })
	for _, path := range everyRoute() {
		for _, host := range []string{"evil.example", "evil.example:5000", "localhost.evil.example", "mirror.lan.evil.example", "127.0.0.1.evil.example", "192.0.2.1"} {
			got := f.do(http.MethodGet, path, "Host", host)
			if got.status != http.StatusMisdirectedRequest || got.code() != codeDenied || !strings.Contains(string(got.body), "client_hosts") {
				t.Errorf("%s as %s: %d %s", path, host, got.status, got.body)
			}
		}
	}
	for _, host := range []string{"", "localhost", "localhost:5000", "127.0.0.1:5000", "[::1]:5000", "mirror.lan", "MIRROR.lan.:5000", "hub.test", "[fd00::1]"} {
		if got := f.do(http.MethodGet, "/v2/app/manifests/1", "Host", host); got.status != http.StatusOK {
			t.Errorf("as %q: %d %s", host, got.status, got.body)
		}
	}
}
