package admin

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestAdminReportsHealthAndReadiness(t *testing.T) {
	m, err := NewMetrics()
	if err != nil {
		t.Fatal(err)
	}
	var stopping error
	admin := New(Options{Metrics: m, Ready: func() error { return stopping }})
	get := func(method, path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		admin.ServeHTTP(w, httptest.NewRequest(method, "http://localhost"+path, nil))
		return w
	}
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/metrics": 200, "/v2/": 404, "/": 404} {
		if got := get(http.MethodGet, path); got.Code != want {
			t.Errorf("%s: %d", path, got.Code)
		}
	}
	if got := get(http.MethodPost, "/readyz"); got.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", got.Code)
	}
	stopping = errors.New("stopping")
	if got := get(http.MethodGet, "/readyz"); got.Code != http.StatusServiceUnavailable || got.Body.String() != "stopping\n" {
		t.Errorf("while it stops: %d %s", got.Code, got.Body)
	}
	if got := get(http.MethodGet, "/healthz"); got.Code != http.StatusOK {
		t.Errorf("health while it stops: %d", got.Code)
	}
}
