package upstream

import (
	"context"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// An endpoint may be a mirror itself, or have a cache before it. Then an answer
// is as old as what that keeps, and not as old as the request. So requests can
// say how old their answers may be, and find out how old they are (RFC 9111,
// sections 5.2.1.1 and 5.1). A registry that answers by itself knows of neither.

type ageKey struct{}

// answers are what is noted of the answers to some requests.
type answers struct {
	maxAge time.Duration

	mu     sync.Mutex
	oldest time.Time
}

// WithMaxAge returns a context in which requests ask for answers of at most that
// age, in whole seconds, and SaidAt says how old they were.
func WithMaxAge(ctx context.Context, most time.Duration) context.Context {
	return context.WithValue(ctx, ageKey{}, &answers{maxAge: max(most, 0)})
}

// SaidAt returns the time at which the registry itself said the oldest of what
// was answered, with success or not, to requests with a context of WithMaxAge. It
// is the zero time if none was answered.
func SaidAt(ctx context.Context) time.Time {
	a, ok := ctx.Value(ageKey{}).(*answers)
	if !ok {
		return time.Time{}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.oldest
}

// oldestWished is the time of the oldest answer that a request asks for; zero if
// it does not say.
func oldestWished(ctx context.Context) time.Time {
	if a, ok := ctx.Value(ageKey{}).(*answers); ok {
		return time.Now().Add(-a.maxAge)
	}
	return time.Time{}
}

// wishAge sets the header of a request.
func wishAge(ctx context.Context, header http.Header) {
	if a, ok := ctx.Value(ageKey{}).(*answers); ok {
		header.Set("Cache-Control", "max-age="+strconv.FormatInt(int64(a.maxAge/time.Second), 10))
	}
}

// noteAge notes how old a response is.
func noteAge(ctx context.Context, resp *http.Response) {
	a, ok := ctx.Value(ageKey{}).(*answers)
	if !ok {
		return
	}
	said := time.Now().Add(-ageOf(resp))
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.oldest.IsZero() || said.Before(a.oldest) {
		a.oldest = said
	}
}

// ageOf is how old a response is said to be. Of several values the first counts,
// and one that cannot be read says nothing (RFC 9111, section 5.1).
func ageOf(resp *http.Response) time.Duration {
	text, _, _ := strings.Cut(resp.Header.Get("Age"), ",")
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 31)
	switch {
	case err == nil:
		return time.Duration(n) * time.Second
	case strings.Trim(text, "0123456789 ") == "" && strings.TrimSpace(text) != "":
		return math.MaxInt32 * time.Second // as many as can be counted
	}
	return 0
}
