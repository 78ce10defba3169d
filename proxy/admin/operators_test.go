package admin

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/proxy/admission"
)

// Whatever changes the cache is refused to other machines, before the cache is
// called: any call but the inventory panics.
func TestAnotherMachineChangesNothing(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("0123456789abcdef"), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := NewMetrics()
	if err != nil {
		t.Fatal(err)
	}
	admin := New(Options{
		Metrics: m, Cache: untouched{}, Ready: func() error { return nil }, Hosts: []string{"mirror.lan"},
		Operators: admission.Operators{TokenFile: token},
	})
	send := func(method, path, bearer string) *httptest.ResponseRecorder {
		r := requestTo("192.0.2.1", method, "mirror.lan:5001", path)
		r.RemoteAddr = "192.0.2.2:40000"
		if bearer != "" {
			r.Header.Set("Authorization", "Bearer "+bearer)
		}
		w := httptest.NewRecorder()
		admin.ServeHTTP(w, r)
		return w
	}
	for _, c := range []struct{ method, path string }{
		{"POST", "/cache/purge"}, {"POST", "/pins"}, {"DELETE", "/pins"}, {"POST", "/cache/scrub?rate=0"}, {"POST", "/import?pin=true&force=false"}, {"POST", "/bundle"}, {"POST", "/warm"}, {"POST", "/reload"}, {"PUT", "/cache"},
	} {
		for _, bearer := range []string{"", "wrong"} {
			w := send(c.method, c.path, bearer)
			var said Error
			if err := json.Unmarshal(w.Body.Bytes(), &said); err != nil || w.Code != http.StatusForbidden || said.Kind != "not_allowed" || !strings.Contains(said.Message, "admin_token_file") {
				t.Errorf("%s %s, token %q: %d %s", c.method, c.path, bearer, w.Code, w.Body)
			}
		}
	}
	// What is sent with the token is read: it is no purge, though.
	if w := send("POST", "/cache/purge", "0123456789abcdef"); w.Code != http.StatusBadRequest {
		t.Errorf("with the token: %d %s", w.Code, w.Body)
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/cache"} {
		if w := send("GET", path, ""); w.Code != http.StatusOK {
			t.Errorf("GET %s: %d", path, w.Code)
		}
	}
}
