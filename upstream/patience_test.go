package upstream

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A list that takes long arrives, however many policies it passes; whatever
// else takes that long does not.
func TestOnlyTheReferrersAPIIsWaitedForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		remote, w := reach(t, func(w http.ResponseWriter, req *http.Request) {
			late(req, 55*time.Second)
			answerEmptyList(w)
		})
		r := Retry(remote)
		began := time.Now()
		if list, err := r.Referrers(t.Context(), "app", subjectOf(0)); err != nil || list == nil || time.Since(began) != 55*time.Second {
			t.Errorf("%v, %v after %s", list, err, time.Since(began))
		}
		if got := w.count("/referrers/"); got != 1 {
			t.Errorf("asked %d times, want 1", got)
		}
		for what, ask := range map[string]func(Registry) error{
			"a manifest": func(r Registry) error { _, err := r.Manifest(t.Context(), "app", "1"); return err },
			"a blob":     func(r Registry) error { _, err := r.Blob(t.Context(), "app", subjectOf(0), 0, -1); return err },
			"tags":       func(r Registry) error { _, err := r.Tags(t.Context(), "app", nil); return err },
		} {
			began := time.Now()
			if err := ask(remote); !errors.Is(err, ErrTimeout) || time.Since(began) != 10*time.Second {
				t.Errorf("%s: %v after %s, want 10s", what, err, time.Since(began))
			}
		}
	})
}

func TestAQuestionAboutReferrersIsAskedTwiceAtMost(t *testing.T) {
	hangs := func(_ http.ResponseWriter, req *http.Request) { late(req, time.Hour) }
	fails := func(after time.Duration) http.HandlerFunc {
		return func(w http.ResponseWriter, req *http.Request) {
			late(req, after)
			w.WriteHeader(http.StatusBadGateway)
		}
	}
	for name, c := range map[string]struct {
		answers []http.HandlerFunc // the last one goes on
		want    error
		asked   int
		most    time.Duration
	}{
		"502":                   {[]http.HandlerFunc{fails(0)}, ErrUnavailable, 2, time.Second},
		"502, then a list":      {[]http.HandlerFunc{fails(0), func(w http.ResponseWriter, _ *http.Request) { answerEmptyList(w) }}, nil, 2, time.Second},
		"silence":               {[]http.HandlerFunc{hangs}, ErrTimeout, 1, 60 * time.Second},
		"502, then silence":     {[]http.HandlerFunc{fails(0), hangs}, ErrTimeout, 2, 61 * time.Second},
		"502 late, and silence": {[]http.HandlerFunc{fails(50 * time.Second), hangs}, ErrTimeout, 2, 75 * time.Second},
		"silence in the middle": {[]http.HandlerFunc{func(w http.ResponseWriter, req *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("{"))
			_ = http.NewResponseController(w).Flush()
			late(req, time.Hour)
		}}, ErrTimeout, 1, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := 0
				remote, w := reach(t, func(w http.ResponseWriter, req *http.Request) {
					answer := c.answers[min(n, len(c.answers)-1)]
					n++
					answer(w, req)
				})
				began := time.Now()
				_, err := Retry(remote).Referrers(t.Context(), "app", subjectOf(0))
				if took := time.Since(began); !errors.Is(err, c.want) || took > c.most || took < c.most-time.Second {
					t.Errorf("%v after %s, want %v after %s", err, took, c.want, c.most)
				}
				if got := w.count("/referrers/"); got != c.asked {
					t.Errorf("asked %d times, want %d", got, c.asked)
				}
			})
		})
	}
}

// Whether HEAD can be believed is learnt from what a GET has returned. One that
// hangs there is waited for once, and not for every tag that is absent.
func TestAHEADThatHangsIsNotWaitedForEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		remote, w := reach(t, func(w http.ResponseWriter, req *http.Request) {
			switch {
			case !strings.HasSuffix(req.URL.Path, "/1"):
				answer(w, http.StatusNotFound, "application/json", `{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`)
			case req.Method == http.MethodHead:
				late(req, time.Hour)
			default:
				answerManifest(w)
			}
		})
		asking{t, remote}.pulls()
		for n, most := range []time.Duration{10 * time.Second, 0, 0} {
			began := time.Now()
			if _, err := remote.Resolve(t.Context(), "app", "2"); !errors.Is(err, ErrNotFound) || time.Since(began) > most {
				t.Errorf("the %d. time: %v after %s", n+1, err, time.Since(began))
			}
		}
		if got := w.count("/manifests/1"); got != 2 {
			t.Errorf("what is there was asked about %d times, want once with GET and once with HEAD", got)
		}
	})
}
