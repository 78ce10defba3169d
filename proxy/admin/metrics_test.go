package admin

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
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

// TestRequestsArePublishedAsTheyAlwaysWere: dashboards depend on each of these
// lines.
func TestRequestsArePublishedAsTheyAlwaysWere(t *testing.T) {
	m, err := NewMetrics()
	if err != nil {
		t.Fatal(err)
	}
	m.Request("r.example", "blob", "hit", 200, 2048, time.Millisecond)
	m.Request("r.example", "blob", "hit", 200, 2048, 1500*time.Microsecond)
	m.Request("r.example", "blob", "failed", 599, 0, 10*time.Minute)
	m.Request("r.example", "blob", "failed", 598, 0, 0)
	m.Request("", "", "failed", 404, 0, 4*time.Millisecond)
	var got []byte
	for line := range bytes.Lines(page(t, m)) {
		if bytes.Contains(line, []byte("entrepot_request")) || bytes.Contains(line, []byte("entrepot_client_")) {
			got = append(got, line...)
		}
	}
	const want = `# HELP entrepot_client_bytes_total Bytes of bodies sent to clients.
# TYPE entrepot_client_bytes_total counter
entrepot_client_bytes_total{upstream="r.example"} 4096
# HELP entrepot_request_duration_seconds Time from a request's headers to the end of its answer.
# TYPE entrepot_request_duration_seconds histogram
entrepot_request_duration_seconds_bucket{kind="blob",le="0.001"} 2
entrepot_request_duration_seconds_bucket{kind="blob",le="0.005"} 3
entrepot_request_duration_seconds_bucket{kind="blob",le="0.02"} 3
entrepot_request_duration_seconds_bucket{kind="blob",le="0.1"} 3
entrepot_request_duration_seconds_bucket{kind="blob",le="0.5"} 3
entrepot_request_duration_seconds_bucket{kind="blob",le="2"} 3
entrepot_request_duration_seconds_bucket{kind="blob",le="10"} 3
entrepot_request_duration_seconds_bucket{kind="blob",le="60"} 3
entrepot_request_duration_seconds_bucket{kind="blob",le="300"} 3
entrepot_request_duration_seconds_bucket{kind="blob",le="+Inf"} 4
entrepot_request_duration_seconds_sum{kind="blob"} 600.0025
entrepot_request_duration_seconds_count{kind="blob"} 4
entrepot_request_duration_seconds_bucket{kind="other",le="0.001"} 0
entrepot_request_duration_seconds_bucket{kind="other",le="0.005"} 1
entrepot_request_duration_seconds_bucket{kind="other",le="0.02"} 1
entrepot_request_duration_seconds_bucket{kind="other",le="0.1"} 1
entrepot_request_duration_seconds_bucket{kind="other",le="0.5"} 1
entrepot_request_duration_seconds_bucket{kind="other",le="2"} 1
entrepot_request_duration_seconds_bucket{kind="other",le="10"} 1
entrepot_request_duration_seconds_bucket{kind="other",le="60"} 1
entrepot_request_duration_seconds_bucket{kind="other",le="300"} 1
entrepot_request_duration_seconds_bucket{kind="other",le="+Inf"} 1
entrepot_request_duration_seconds_sum{kind="other"} 0.004
entrepot_request_duration_seconds_count{kind="other"} 1
# HELP entrepot_requests_total Requests of clients by upstream, kind, outcome and status.
# TYPE entrepot_requests_total counter
entrepot_requests_total{kind="other",outcome="failed",status="404"} 1
entrepot_requests_total{kind="blob",outcome="failed",status="5xx",upstream="r.example"} 2
entrepot_requests_total{kind="blob",outcome="hit",status="200",upstream="r.example"} 2
`
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestCountingARequestAllocatesNothing(t *testing.T) {
	m, err := NewMetrics()
	if err != nil {
		t.Fatal(err)
	}
	count := func() { m.Request("r.example", "blob", "hit", 200, 2048, time.Millisecond) }
	count()
	if n := testing.AllocsPerRun(100, count); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestRequestsThatComeAtOnceAreAllCounted(t *testing.T) {
	m, err := NewMetrics()
	if err != nil {
		t.Fatal(err)
	}
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for code := range 600 {
				m.Request("r.example", "blob", "hit", code, 1, 0)
				if code%100 == 0 {
					page(t, m)
				}
			}
		})
	}
	clients.Wait()
	got := page(t, m)
	for _, want := range []string{
		`entrepot_requests_total{kind="blob",outcome="hit",status="200",upstream="r.example"} 8`,
		`entrepot_client_bytes_total{upstream="r.example"} 4800`, `entrepot_request_duration_seconds_count{kind="blob"} 4800`,
	} {
		if !bytes.Contains(got, []byte(want+"\n")) {
			t.Errorf("missing: %s", want)
		}
	}
}
