package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/admin"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream"
)

// journal takes log lines, and tells when one has come.
type journal struct {
	mu    sync.Mutex
	lines []string
	came  chan struct{}
}

func newJournal() *journal { return &journal{came: make(chan struct{}, 100)} }

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, string(b))
	j.came <- struct{}{}
	return len(b), nil
}

// next waits for the next line and returns its fields.
func (j *journal) next(t *testing.T) map[string]any {
	t.Helper()
	<-j.came
	j.mu.Lock()
	defer j.mu.Unlock()
	var fields map[string]any
	if err := json.Unmarshal([]byte(j.lines[0]), &fields); err != nil {
		t.Fatal(err)
	}
	j.lines = j.lines[1:]
	return fields
}

func withJournal(j *journal) func(*Options, *httptest.Server) {
	return func(o *Options, _ *httptest.Server) { o.Logger = slog.New(slog.NewJSONHandler(j, nil)) }
}

func wantFields(t *testing.T, got map[string]any, want map[string]any) {
	t.Helper()
	for key, value := range want {
		if fmt.Sprint(got[key]) != fmt.Sprint(value) {
			t.Errorf("%s: %v, want %v", key, got[key], value)
		}
	}
}

func TestARequestIsOneLineWithoutSecrets(t *testing.T) {
	j := newJournal()
	f := newFace(t, manifests(ocispec.MediaTypeImageIndex, []byte("{}"), nil), withJournal(j))
	f.do(http.MethodGet, "/v2/org/app/manifests/1?ns=ghcr.io&token=hush", "Authorization", "Bearer hush", "Cookie", "hush", "User-Agent", "pull/"+strings.Repeat("1", 1000))
	fields := j.next(t)
	wantFields(t, fields, map[string]any{
		"msg": "request", "level": "INFO", "method": "GET", "kind": "manifest", "upstream": "ghcr.io", "repository": "org/app", "reference": "1",
		"status": 200, "bytes": 2, "outcome": "hit", "client": "127.0.0.1", "ns": "ghcr.io",
	})
	if agent := fields["agent"].(string); len(agent) != 100 || !strings.HasPrefix(agent, "pull/1") {
		t.Errorf("agent %s", agent)
	}
	if fields["took"] == nil || fields["error"] != nil || strings.Contains(fmt.Sprint(fields), "hush") {
		t.Errorf("%v", fields)
	}
	select {
	case <-j.came:
		t.Errorf("another line: %s", j.lines)
	default:
	}
}

func TestFailuresAreInTheLog(t *testing.T) {
	b := numbered(700_000)
	for _, c := range []struct {
		name, target string
		puller       script
		want         map[string]any
	}{
		{
			"an upstream that fails", blobPath(b), blobs(&content{bytes: b, err: upstream.ErrTimeout}),
			map[string]any{"level": "WARN", "status": 504, "outcome": "failed", "error": upstream.ErrTimeout.Error()},
		},
		{
			"a connection that is broken", blobPath(b), blobs(&content{bytes: b, after: 300_000, err: upstream.ErrUnavailable}),
			map[string]any{"level": "WARN", "status": 200, "outcome": "broken", "error": upstream.ErrUnavailable.Error()},
		},
		{
			"a failure of the mirror's own", blobPath(b), blobs(&content{bytes: b, err: errors.New("permission denied")}),
			map[string]any{"level": "WARN", "status": 500, "outcome": "failed", "error": "permission denied"},
		},
		{
			"a request that is refused", "/v2/foo.example/app/manifests/1?token=hush", script{},
			map[string]any{"level": "INFO", "status": 404, "outcome": "failed", "kind": "manifest", "upstream": "", "path": "/v2/foo.example/app/manifests/1"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := newJournal()
			newFace(t, c.puller, withJournal(j)).do(http.MethodGet, c.target)
			wantFields(t, j.next(t), c.want)
		})
	}
}

func TestClientThatLeavesIsNoFailure(t *testing.T) {
	j := newJournal()
	b := numbered(64 << 20) // more than the buffers of a connection
	f := newFace(t, script{blob: func(pull.Repository, digest.Digest) (pull.Blob, error) { return &content{bytes: b}, nil }}, withJournal(j))
	conn, err := net.Dial("tcp", f.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: m\r\n\r\n", blobPath(b))
	if _, err := io.ReadFull(conn, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	wantFields(t, j.next(t), map[string]any{"level": "INFO", "status": statusClientLeft, "outcome": "hit"})
}

func TestMetricsHaveNoNamesOfClients(t *testing.T) {
	m, err := admin.NewMetrics()
	if err != nil {
		t.Fatal(err)
	}
	f := newFace(t, manifests(ocispec.MediaTypeImageIndex, []byte("{}"), nil), func(o *Options, _ *httptest.Server) { o.Observer = m })
	for range 2 {
		f.do(http.MethodGet, "/v2/ghcr.io/someone/something/manifests/sometime")
	}
	f.do(http.MethodGet, "/v2/someplace.example/someone/manifests/sometime?ns=somewhere.example")
	f.do(http.MethodGet, "/something")
	m.Declare("ghcr.io", "quay.io")
	m.Flights(1)
	m.Received("ghcr.io", 1000)
	m.Bypassed("ghcr.io")
	m.Damaged()
	m.Upstream("ghcr.io", "manifest", "HEAD", 200)
	m.Upstream("ghcr.io", "blob", "GET", 0)
	prometheus := httptest.NewServer(m.Handler())
	defer prometheus.Close()
	resp, err := http.Get(prometheus.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`entrepot_requests_total{kind="manifest",outcome="hit",status="200",upstream="ghcr.io"} 2`,
		`entrepot_requests_total{kind="manifest",outcome="failed",status="404"} 1`,
		`entrepot_requests_total{kind="other",outcome="failed",status="404"} 1`,
		`entrepot_client_bytes_total{upstream="ghcr.io"} 4`,
		`entrepot_request_duration_seconds_count{kind="manifest"} 3`,
		`entrepot_flights 1`,
		`entrepot_upstream_bytes_total{upstream="ghcr.io"} 1000`,
		`entrepot_upstream_requests_total{kind="manifest",method="HEAD",status="200",upstream="ghcr.io"} 1`,
		`entrepot_upstream_requests_total{kind="blob",method="GET",status="0",upstream="ghcr.io"} 1`,
		`entrepot_cache_bypass_total{upstream="ghcr.io"} 1`,
		`entrepot_cache_bypass_total{upstream="quay.io"} 0`,
		`entrepot_cache_damaged_total 1`,
		`entrepot_panics_total 0`,
		`entrepot_upstream_bytes_total{upstream="quay.io"} 0`,
		`entrepot_cache_evicted_bytes_total 0`,
		`# TYPE go_goroutines gauge`,
		`# TYPE process_open_fds gauge`,
	} {
		if !bytes.Contains(page, []byte(want+"\n")) {
			t.Errorf("missing: %s", want)
		}
	}
	if bytes.Contains(page, []byte("some")) {
		t.Error("what clients name is a label")
	}
	if t.Failed() {
		t.Logf("%s", page)
	}
}

func TestTheAdminRoutesAreNotOnTheClientsPort(t *testing.T) {
	clients := newFace(t, script{})
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		if got := clients.do(http.MethodGet, path); got.status != http.StatusNotFound {
			t.Errorf("%s: %d", path, got.status)
		}
	}
}
