package upstream

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// W47: Docker Hub sends a Unix time, others a date, others other headers.
func TestWhenToComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		soon := time.Now().Add(5 * time.Second)
		for _, c := range []struct {
			header, text string
			want         time.Duration
		}{
			{"Retry-After", "5", 5 * time.Second},
			{"Retry-After", fmt.Sprint(soon.Unix()), 5 * time.Second},
			{"Retry-After", fmt.Sprint(soon.UnixMilli()), 5 * time.Second},
			{"Retry-After", soon.UTC().Format(http.TimeFormat), 5 * time.Second},
			{"Retry-After", "0.5", time.Second},
			{"Retry-After", "86400", maxWait},
			{"Retry-After", "1e300", maxWait},
			{"Retry-After", "-5", defaultWait},
			{"Retry-After", "soon", defaultWait},
			{"Retry-After", "Thu, 01 Jan 1970 00:00:00 GMT", time.Second},
			{"X-Retry-After", fmt.Sprint(soon.Unix()), 5 * time.Second},
			{"X-Ratelimit-Reset", fmt.Sprint(soon.Unix()), 5 * time.Second},
			{"Ratelimit-Reset", "5", 5 * time.Second},
			{"Ratelimit-Reset", "5;w=60", 5 * time.Second},
			{"Date", "5", defaultWait},
		} {
			if got := retryAfter(&http.Response{Header: http.Header{c.header: {c.text}}}); got != c.want {
				t.Errorf("%s: %s: %s, want %s", c.header, c.text, got, c.want)
			}
		}
	})
}
