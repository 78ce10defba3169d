package proxy

import (
	"net/http"
	"testing"
	"time"

	"github.com/entrepot/entrepot/proxy/pull"
)

func TestAClientsWishForAFreshAnswerIsRead(t *testing.T) {
	none, never := pull.Freshness{}, pull.NoOlderThan(maxSeconds*time.Second)
	for _, c := range []struct {
		name   string
		header http.Header
		want   pull.Freshness
	}{
		{"nothing is said", nil, none},
		{"no-cache", http.Header{"Cache-Control": {"no-cache"}}, pull.NoOlderThan(0)},
		{"in capitals", http.Header{"Cache-Control": {"No-Cache"}}, pull.NoOlderThan(0)},
		{"as browsers reload", http.Header{"Cache-Control": {"max-age=0"}}, pull.NoOlderThan(0)},
		{"an age", http.Header{"Cache-Control": {"max-age=10"}}, pull.NoOlderThan(10 * time.Second)},
		{"an age in quotes", http.Header{"Cache-Control": {`max-age="10"`}}, pull.NoOlderThan(10 * time.Second)},
		{"an age of more than can be counted", http.Header{"Cache-Control": {"max-age=99999999999999999999999"}}, never},
		{"among others", http.Header{"Cache-Control": {"no-transform, max-age=10 , no-store"}}, pull.NoOlderThan(10 * time.Second)},
		{"the strictest of several counts", http.Header{"Cache-Control": {"max-age=10, max-age=5", "max-age=7"}}, pull.NoOlderThan(5 * time.Second)},
		{"no-cache is stricter than any age", http.Header{"Cache-Control": {"max-age=10", "no-cache"}}, pull.NoOlderThan(0)},
		{"an age below zero", http.Header{"Cache-Control": {"max-age=-1"}}, none},
		{"an age that is no number", http.Header{"Cache-Control": {"max-age=soon"}}, none},
		{"an age that is not given", http.Header{"Cache-Control": {"max-age"}}, none},
		{"another directive", http.Header{"Cache-Control": {"no-cached, max-stale=10, only-if-cached"}}, none},
		{"Pragma alone", http.Header{"Pragma": {"no-cache"}}, pull.NoOlderThan(0)},
		{"Pragma with another word", http.Header{"Pragma": {"a=b, No-Cache"}}, pull.NoOlderThan(0)},
		{"Pragma of another kind", http.Header{"Pragma": {"cache"}}, none},
		{"Cache-Control goes before Pragma", http.Header{"Cache-Control": {"max-age=10"}, "Pragma": {"no-cache"}}, pull.NoOlderThan(10 * time.Second)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := wishedFreshness(c.header); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

func FuzzFreshness(f *testing.F) {
	for _, s := range []string{"no-cache", "max-age=10", `max-age="`, ",=,", "max-age=99999999999999999999"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, control, pragma string) {
		got := wishedFreshness(http.Header{"Cache-Control": {control}, "Pragma": {pragma}})
		if got != (pull.Freshness{}) && got == pull.NoOlderThan(-1) {
			t.Errorf("%q: %+v", control, got)
		}
	})
}
