package upstream

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
)

func TestAnUpstreamIsAwayIfItCannotBeAskedAtAll(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		away bool
	}{
		"no connection":                   {ErrRefused, true},
		"a time-out of dialling":          {unhealthy(ErrTimeout), true},
		"503":                             {unhealthy(ErrUnavailable), true},
		"a mirror that could not ask":     {ErrStale, true},
		"slowness":                        {ErrTimeout, false},
		"a page":                          {ErrInvalidResponse, false},
		"storage that is down":            {ErrThirdParty, false},
		"a limit":                         {&RateLimitedError{}, false},
		"a refusal":                       {ErrDenied, false},
		"an absence":                      {ErrNotFound, false},
		"an answer that can't be trusted": {ErrUnavailable, false},
	} {
		if got := IsAway(fmt.Errorf("ask: %w", c.err)); got != c.away {
			t.Errorf("%s: %v", name, got)
		}
	}
	// While the breaker answers for it, it is away as well.
	synctest.Test(t, func(t *testing.T) {
		r := Breaker(&fakeRegistry{answer: func(context.Context, int) error { return unhealthy(ErrTimeout) }})
		for i := range 4 * failureThreshold {
			if _, err := r.Resolve(t.Context(), "repo", "ref"); !IsAway(err) {
				t.Errorf("request %d: %v", i, err)
			}
		}
	})
}
