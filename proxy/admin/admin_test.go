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
		admin.ServeHTTP(w, requestTo("127.0.0.1", method, "localhost", path))
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

func TestAProbeIsAnsweredBeforeTheCacheIsOpen(t *testing.T) {
	m, err := NewMetrics()
	if err != nil {
		t.Fatal(err)
	}
	starting := NewStarting(m, nil)
	want := func(when, host, path string, want int) {
		t.Helper()
		w := httptest.NewRecorder()
		starting.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://"+host+path, nil))
		if w.Code != want {
			t.Errorf("%s, %s: %d, want %d", when, path, w.Code, want)
		}
	}
	for path, status := range map[string]int{"/healthz": 200, "/metrics": 200, "/readyz": 503, "/config": 503, "/": 503} {
		want("before", "localhost", path, status)
	}
	want("before, under another name", "evil.example", "/config", 421)
	starting.Started(New(Options{Metrics: m, Ready: func() error { return nil }}))
	for path, status := range map[string]int{"/healthz": 200, "/metrics": 200, "/readyz": 200, "/": 404} {
		want("after", "localhost", path, status)
	}
}
