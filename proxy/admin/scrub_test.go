package admin

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/proxy/retention"
)

// scrubbing is a Cache of 10,000 files that are hashed in ten seconds.
type scrubbing struct{ Cache }

func (scrubbing) Scrub(_ context.Context, _ int64, progress func(retention.Scrubbed)) (s retention.Scrubbed, err error) {
	for range 10_000 {
		time.Sleep(time.Millisecond)
		s.Files++
		progress(s)
	}
	return s, nil
}

func TestAScrubAnswersWithALineASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := httptest.NewRecorder()
		serveScrub(w, httptest.NewRequest(http.MethodPost, "/cache/scrub?rate=0", nil), scrubbing{})
		lines := strings.Split(strings.TrimSpace(w.Body.String()), "\n")
		if len(lines) != 11 || !strings.HasPrefix(lines[4], `{"files":5000,`) || !strings.Contains(lines[10], `"files":10000,`) || !strings.Contains(lines[10], `"done":true`) {
			t.Errorf("%d lines: %s", len(lines), w.Body)
		}
	})
}
