package admin

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func page(t *testing.T, m *Metrics) []byte {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.Bytes()
}

func TestEveryUpstreamHasItsSeries(t *testing.T) {
	m, err := NewMetrics()
	if err != nil {
		t.Fatal(err)
	}
	const upstreams = 450
	outcomes := []string{"hit", "miss", "joined", "revalidated", "stale", "failed"}
	for i := range upstreams {
		for _, outcome := range outcomes {
			m.Request(fmt.Sprintf("r%d.example", i), "manifest", outcome, 200, 10, time.Millisecond)
		}
	}
	got := page(t, m)
	for i := range upstreams {
		for _, outcome := range outcomes {
			want := fmt.Sprintf(`entrepot_requests_total{kind="manifest",outcome="%s",status="200",upstream="r%d.example"} 1`, outcome, i)
			if !bytes.Contains(got, []byte(want+"\n")) {
				t.Fatalf("missing: %s", want)
			}
		}
	}
	if bytes.Contains(got, []byte("otel_metric_overflow")) {
		t.Error("some stand under an overflow")
	}
}

func TestStatusesThatAnUpstreamMakesUpAreCountedByClass(t *testing.T) {
	m, err := NewMetrics()
	if err != nil {
		t.Fatal(err)
	}
	for code := range 1000 {
		m.Upstream("r.example", "blob", "GET", code)
		m.Request("r.example", "blob", "failed", code, 0, 0)
	}
	got := page(t, m)
	for _, series := range []string{"entrepot_upstream_requests_total{", "entrepot_requests_total{"} {
		if n := bytes.Count(got, []byte("\n"+series)); n < 50 || n > 80 {
			t.Errorf("%d series of %s", n, series)
		}
	}
	for _, want := range []string{`status="0"`, `status="404"`, `status="5xx"`, `status="other"`} {
		if !bytes.Contains(got, []byte(want)) {
			t.Errorf("missing: %s", want)
		}
	}
}
