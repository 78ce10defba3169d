package upstream

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// defaultWait is how long no requests are sent to an upstream that limits
	// its rate without saying for how long; maxWait is the longest that is
	// trusted.
	defaultWait = 30 * time.Second
	maxWait     = time.Hour
)

// retryAfter returns how long to wait, at least a second. Registries send it in
// many ways (W47): in seconds, as a date or as a Unix time, in standard headers
// (RFC 9110, section 10.2.3) and in others.
func retryAfter(resp *http.Response) time.Duration {
	for _, name := range []string{"Retry-After", "X-Retry-After", "RateLimit-Reset", "X-Ratelimit-Reset", "X-Rate-Limit-Reset"} {
		if wait, ok := parseWait(resp.Header.Get(name), time.Now()); ok {
			return min(max(wait, time.Second), maxWait)
		}
	}
	return defaultWait
}

// parseWait parses one header. The wait is negative if the time has passed.
func parseWait(text string, now time.Time) (time.Duration, bool) {
	text = strings.TrimSpace(text)
	if at, err := http.ParseTime(text); err == nil {
		return at.Sub(now), true
	}
	text, _, _ = strings.Cut(text, ";") // 30;w=60
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || n < 0 || math.IsNaN(n) || math.IsInf(n, 0) {
		return 0, false
	}
	const (
		seconds = 5e8  // a Unix time in 1985: no wait is that long
		millis  = 5e11 // the same in milliseconds
	)
	switch {
	case n >= millis:
		return time.UnixMilli(int64(min(n, math.MaxInt64/2))).Sub(now), true
	case n >= seconds:
		return time.Unix(int64(n), 0).Sub(now), true
	}
	return time.Duration(n * float64(time.Second)), true
}

// rateLimitOf parses "RateLimit-Remaining: 76;w=21600" (W42).
func rateLimitOf(resp *http.Response) (limit, remaining int, window time.Duration) {
	limit, window, ok := parseRate(resp.Header.Get("RateLimit-Limit"))
	if !ok {
		return 0, 0, 0
	}
	remaining, w, ok := parseRate(resp.Header.Get("RateLimit-Remaining"))
	if !ok {
		return 0, 0, 0
	}
	return limit, remaining, max(window, w)
}

func parseRate(header string) (n int, window time.Duration, ok bool) {
	number, params, _ := strings.Cut(header, ";")
	n, err := strconv.Atoi(strings.TrimSpace(number))
	if err != nil || n < 0 {
		return 0, 0, false
	}
	if text, found := strings.CutPrefix(strings.TrimSpace(params), "w="); found {
		if seconds, err := strconv.Atoi(text); err == nil {
			window = time.Duration(seconds) * time.Second
		}
	}
	return n, window, true
}
