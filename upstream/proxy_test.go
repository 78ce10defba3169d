package upstream_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/entrepot/entrepot/upstream"
)

// Proxies stand in private networks more often than not.
func TestAProxyOfTheEnvironmentMayBePrivateAndWhatItIsSentToMayNot(t *testing.T) {
	const manifest = `{"schemaVersion": 2}`
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Host != "registry.example":
			t.Errorf("the proxy is asked for %s", r.URL)
		case r.URL.Path == "/v2/app/manifests/elsewhere":
			http.Redirect(w, r, "http://10.0.0.1/", http.StatusTemporaryRedirect)
		default:
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			_, _ = w.Write([]byte(manifest))
		}
	}))
	defer proxy.Close()
	t.Setenv("HTTP_PROXY", proxy.URL)
	t.Setenv("NO_PROXY", "")
	r := remote(t, "http://registry.example", func(*upstream.RemoteOptions) {})
	c, err := r.Manifest(t.Context(), "app", "1")
	if err != nil {
		t.Fatal(err)
	}
	c.Body.Close()
	if c.Size != int64(len(manifest)) {
		t.Errorf("the manifest has %d bytes, want %d", c.Size, len(manifest))
	}
	if _, err := r.Manifest(t.Context(), "app", "elsewhere"); !errors.Is(err, upstream.ErrInvalidResponse) {
		t.Errorf("a redirect to a private address: %v, want ErrInvalidResponse", err)
	}
}
