package upstream_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/entrepot/entrepot/upstream"
)

// On HTTP/2 the wait is that of a stream, and not that of a connection.
func TestAListIsWaitedForOnHTTP2AsWell(t *testing.T) {
	protocols := make(chan string, 10)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		protocols <- req.Proto
		select {
		case <-time.After(time.Second):
		case <-req.Context().Done():
			return
		}
		if strings.Contains(req.URL.Path, "/referrers/") {
			say(w, http.StatusOK, indexType, `{"schemaVersion":2,"mediaType":"`+indexType+`","manifests":[]}`)
			return
		}
		saysManifest(w)
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	r := remote(t, s.URL, func(o *upstream.RemoteOptions) {
		o.InsecureSkipVerify = true
		o.Waits = upstream.Timeouts{Header: 200 * time.Millisecond}
	})
	if _, err := r.Referrers(t.Context(), "app", noSubject); err != nil {
		t.Error(err)
	}
	if _, err := r.Resolve(t.Context(), "app", "1"); !errors.Is(err, upstream.ErrTimeout) {
		t.Errorf("a manifest: %v", err)
	}
	for range 2 {
		if got := <-protocols; got != "HTTP/2.0" {
			t.Errorf("asked by %s", got)
		}
	}
}
