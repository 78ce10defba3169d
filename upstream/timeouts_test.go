package upstream_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/entrepot/entrepot/upstream"
)

// On HTTP/2 the wait is that of a stream, and not that of a connection.
func TestAHeaderIsWaitedForOnHTTP2AsWell(t *testing.T) {
	protocols := make(chan string, 10)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		protocols <- req.Proto
		if strings.HasSuffix(req.URL.Path, "/2") {
			<-req.Context().Done()
			return
		}
		<-time.After(300 * time.Millisecond)
		saysManifest(w)
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	r := remote(t, s.URL, func(o *upstream.RemoteOptions) {
		o.InsecureSkipVerify = true
		o.Waits = upstream.Timeouts{Header: time.Second}
	})
	if _, err := r.Resolve(t.Context(), "app", "1"); err != nil {
		t.Error(err)
	}
	began := time.Now()
	if _, err := r.Resolve(t.Context(), "app", "2"); !upstream.IsSlow(err) || time.Since(began) > 5*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
	for range 2 {
		if got := <-protocols; got != "HTTP/2.0" {
			t.Errorf("asked by %s", got)
		}
	}
}
