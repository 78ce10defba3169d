package proxy_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/proxy"
	"github.com/entrepot/entrepot/proxy/admin"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream"
)

// failing is a mirror whose upstreams fail in turn.
type failing struct {
	proxy.Puller
	asked int
}

func (f *failing) ManifestFor(context.Context, pull.Repository, string, []string, ...pull.Freshness) (pull.Manifest, error) {
	f.asked++
	return pull.Manifest{}, []error{upstream.ErrUnavailable, upstream.ErrNotFound, upstream.ErrDenied, upstream.ErrTimeout, upstream.ErrInvalidResponse}[f.asked%5]
}

func metricFaults(t *testing.T) string {
	var lines faultLines
	for i, upstreams := range []int{10, 450, 2500} {
		metrics, err := admin.NewMetrics()
		if err != nil {
			t.Fatal(err)
		}
		var all []proxy.Upstream
		for n := range upstreams {
			all = append(all, proxy.Upstream{Name: fmt.Sprintf("r%d.example", n)})
		}
		server := proxy.New(proxy.Options{Puller: &failing{}, Upstreams: all, Logger: slog.New(slog.DiscardHandler), Observer: metrics})
		for _, u := range all {
			for range 5 {
				server.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/v2/"+u.Name+"/app/manifests/1", nil))
			}
		}
		page := httptest.NewRecorder()
		metrics.Handler().ServeHTTP(page, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		statuses := map[string]map[string]bool{}
		for line := range strings.Lines(page.Body.String()) {
			labels, ok := strings.CutPrefix(line, "entrepot_requests_total{")
			_, name, found := strings.Cut(labels, `upstream="`)
			_, status, _ := strings.Cut(labels, `status="`)
			if name, _, _ = strings.Cut(name, `"`); ok && found {
				if statuses[name] == nil {
					statuses[name] = map[string]bool{}
				}
				status, _, _ = strings.Cut(status, `"`)
				statuses[name][status] = true
			}
		}
		whole := 0
		for _, u := range all {
			if len(statuses[u.Name]) == 4 { // 502 for two of the five errors
				whole++
			}
		}
		overflow := strings.Contains(page.Body.String(), "otel_metric_overflow")
		if whole != upstreams || overflow {
			t.Errorf("%d of %d upstreams have all of their series, some under an overflow: %t", whole, upstreams, overflow)
		}
		lines.add(i, fmt.Sprintf("%d upstreams answer with 404, 403, 502 and 504", upstreams), fmt.Sprintf("%d of %d", whole, upstreams), yes(overflow))
	}
	return "## Metrics\n\nEach upstream has the number of its requests, by status.\n\n" + lines.table("what happens", "upstreams with all of it", "something is counted without its upstream")
}
