package admin

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/proxy/retention"
)

// purging is a Cache that notes what is to be purged.
type purging struct {
	Cache
	targets []retention.Target
}

func (p *purging) Purge(_ context.Context, target retention.Target, _ bool) (retention.Purged, error) {
	p.targets = append(p.targets, target)
	return retention.Purged{}, nil
}

func TestAPurgeOfEverythingNeedsItsWord(t *testing.T) {
	m, err := NewMetrics()
	if err != nil {
		t.Fatal(err)
	}
	cache := &purging{}
	admin := New(Options{Metrics: m, Cache: cache, Ready: func() error { return nil }})
	for body, want := range map[string]struct {
		status int
		target retention.Target
	}{
		`{"all": true}`:                                      {200, retention.Everything()},
		`{"all": true, "dryRun": true}`:                      {200, retention.Everything()},
		`{"all": true, "ref": "1"}`:                          {400, retention.Target{}},
		`{"all": true, "upstream": "a.b"}`:                   {400, retention.Target{}},
		`{"all": "yes"}`:                                     {400, retention.Target{}},
		`{"ref": "*"}`:                                       {400, retention.Target{}},
		`{"everything": true}`:                               {400, retention.Target{}},
		`{"upstream": "a.b", "repository": "c", "ref": "1"}`: {200, retention.Target{Repository: retention.Repository{Upstream: "a.b", Name: "c"}, Ref: "1"}},
	} {
		cache.targets = nil
		r := requestTo("127.0.0.1", http.MethodPost, "localhost", "/cache/purge")
		r.Body = io.NopCloser(strings.NewReader(body))
		w := httptest.NewRecorder()
		admin.ServeHTTP(w, r)
		if purged := len(cache.targets) == 1 && cache.targets[0] == want.target; w.Code != want.status || purged != (want.status == 200) {
			t.Errorf("%s: %d %s, %v", body, w.Code, w.Body, cache.targets)
		}
	}
}
