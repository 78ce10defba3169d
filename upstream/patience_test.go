package upstream

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// requests are one request of each kind.
var requests = map[string]func(Endpoint, context.Context) error{
	"a manifest": func(r Endpoint, ctx context.Context) error { _, err := r.Manifest(ctx, "app", "1"); return err },
	"a tag":      func(r Endpoint, ctx context.Context) error { _, err := r.Resolve(ctx, "app", "1"); return err },
	"a blob": func(r Endpoint, ctx context.Context) error {
		_, err := r.Blob(ctx, "app", subjectOf(0), 0, -1)
		return err
	},
	"a range": func(r Endpoint, ctx context.Context) error {
		_, err := r.Blob(ctx, "app", subjectOf(0), 1, 2)
		return err
	},
	"a blob's size": func(r Endpoint, ctx context.Context) error {
		_, err := r.ResolveBlob(ctx, "app", subjectOf(0))
		return err
	},
	"a list of tags": func(r Endpoint, ctx context.Context) error { _, err := r.Tags(ctx, "app", nil); return err },
	"referrers": func(r Endpoint, ctx context.Context) error {
		_, err := r.Referrers(ctx, "app", subjectOf(0))
		return err
	},
}

// answerAnything answers whatever is requested.
func answerAnything(w http.ResponseWriter, req *http.Request) {
	switch {
	case strings.Contains(req.URL.Path, "/referrers/"):
		answerEmptyList(w)
	case strings.Contains(req.URL.Path, "/tags/"):
		answer(w, http.StatusOK, "application/json", `{"tags":["1"]}`)
	case req.Header.Get("Range") != "":
		w.Header().Set("Content-Range", "bytes 1-2/19")
		answer(w, http.StatusPartialContent, "application/octet-stream", `"s`)
	default:
		answerManifest(w)
	}
}

// What takes less than a minute comes at the first request, however many
// policies it passes. Parents fetch before they answer, and some registries
// search for half a minute.
func TestAMinuteIsWaitedForAHeader(t *testing.T) {
	for what, ask := range requests {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				remote, w := reach(t, func(w http.ResponseWriter, req *http.Request) {
					late(req, 55*time.Second)
					answerAnything(w, req)
				})
				began := time.Now()
				if err := ask(Breaker(Retry(remote)), t.Context()); err != nil || time.Since(began) != 55*time.Second {
					t.Errorf("%v after %s", err, time.Since(began))
				}
				if got := w.count("/v2/"); got != 1 {
					t.Errorf("asked %d times, want 1", got)
				}
			})
		})
	}
}

// What takes longer is asked for once more when the first request is over, and
// waited for twice as long. Then that is enough.
func TestWhatIsSlowIsAskedForOnceMoreAndWaitedForLonger(t *testing.T) {
	for what, ask := range requests {
		if what == "referrers" {
			continue // TestAQuestionAboutReferrersIsAskedTwiceAtMost
		}
		t.Run(what, func(t *testing.T) {
			for takes, want := range map[time.Duration]error{90 * time.Second: nil, time.Hour: ErrTimeout} {
				synctest.Test(t, func(t *testing.T) {
					atOnce, most := 0, 0
					remote, w := reach(t, func(w http.ResponseWriter, req *http.Request) {
						atOnce++
						most = max(most, atOnce)
						late(req, takes)
						atOnce--
						answerAnything(w, req)
					})
					began := time.Now()
					err := ask(Retry(remote), t.Context())
					took := time.Since(began).Round(time.Second)
					synctest.Wait() // for the handler
					if !errors.Is(err, want) || took != time.Minute+min(takes, 2*time.Minute) {
						t.Errorf("what takes %s: %v after %s", takes, err, took)
					}
					if want != nil && !IsSlow(err) {
						t.Errorf("%v is not slow", err)
					}
					if got := w.count("/v2/"); got != 2 || most != 1 {
						t.Errorf("what takes %s: asked %d times, %d at once", takes, got, most)
					}
				})
			}
		})
	}
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
		}}, ErrTimeout, 1, 60 * time.Second},
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

// A token server is waited for as the registry is, and what it says in the end
// is kept, whoever has left by then.
func TestATokenServerIsWaitedForAsWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		remote, w := reach(t, func(w http.ResponseWriter, req *http.Request) {
			switch {
			case req.URL.Path == "/token":
				late(req, 45*time.Second)
				answer(w, http.StatusOK, "application/json", `{"token":"good","expires_in":3600}`)
			case req.Header.Get("Authorization") == "":
				w.Header().Set("WWW-Authenticate", `Bearer realm="http://hub.test/token",service="hub"`)
				answer(w, http.StatusUnauthorized, "application/json", `{"errors":[{"code":"UNAUTHORIZED"}]}`)
			default:
				answerManifest(w)
			}
		})
		r := Breaker(Retry(remote))
		ask := requests["a manifest"]
		ctx, cancel := context.WithTimeout(t.Context(), 18*time.Second)
		defer cancel()
		if err := ask(r, ctx); err == nil {
			t.Error("there is an answer without a token")
		}
		began := time.Now()
		if err := ask(r, t.Context()); err != nil || time.Since(began) != 27*time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		if got := w.count("/token"); got != 1 {
			t.Errorf("%d tokens were requested", got)
		}
	})
}
