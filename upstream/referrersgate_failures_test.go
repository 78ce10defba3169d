package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestASlowSubjectDoesNotCloseARouteThatAnswers(t *testing.T) {
	slow := subjectOf(0).String()
	bubble(t, func(w http.ResponseWriter, req *http.Request) {
		if strings.HasSuffix(req.URL.Path, slow) {
			late(req, 11*time.Second)
		}
		answerEmptyList(w)
	}, func(t *testing.T, a asking, _ *wired) {
		first := a.later("app", 0)
		for n := 1; n < 20; n++ {
			time.Sleep(800 * time.Millisecond) // never when the first falls silent
			a.open("app", n)
		}
		if err := <-first; err != nil {
			t.Error(err)
		}
	})
}

func TestWhatDoesNotCloseTheReferrersRoute(t *testing.T) {
	complain := func(status int, code string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			answer(w, status, "application/json", `{"errors":[{"code":"`+code+`"}]}`)
		}
	}
	for name, c := range map[string]struct {
		api  http.HandlerFunc
		want error
	}{
		"403":                         {complain(403, "DENIED"), ErrDenied},
		"401":                         {complain(401, "UNAUTHORIZED"), ErrDenied},
		"404 of a repository":         {complain(404, "NAME_UNKNOWN"), ErrNotFound},
		"404 of one that has the API": {complain(404, "MANIFEST_UNKNOWN"), ErrInvalidResponse},
		"405 of one that has the API": {complain(405, "UNSUPPORTED"), ErrInvalidResponse},
		"400":                         {complain(400, "DIGEST_INVALID"), nil},
		"414 of the specification":    {complain(414, "UNSUPPORTED"), ErrInvalidResponse},
		"500 of one repository":       {complain(500, "UNKNOWN"), ErrUnavailable},
		"storage that it leads to": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://storage.test/v2/x/referrers/y", http.StatusTemporaryRedirect)
		}, ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(w http.ResponseWriter, req *http.Request) {
				if strings.Contains(req.URL.Path, "/private/") {
					c.api(w, req)
					return
				}
				answerEmptyList(w)
			}, func(t *testing.T, a asking, _ *wired) {
				for n := range 9 {
					a.open("app", n)
					for range 2 {
						if err := a.referrers("private", n); err == nil && c.want != nil || !errors.Is(err, c.want) {
							t.Errorf("%v, want %v", err, c.want)
						}
					}
				}
				a.open("app", 10)
			})
		})
	}
}

func Test500sOfSeveralRepositoriesCloseTheReferrersRoute(t *testing.T) {
	bubble(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }, func(t *testing.T, a asking, w *wired) {
		for n := range referrersFailureThreshold {
			_ = a.referrers(fmt.Sprint("app", n), 0)
		}
		for n := range 9 {
			a.closed(fmt.Sprint("repo", n), 0)
		}
		if got, want := w.count("/referrers/"), 2*referrersFailureThreshold; got != want {
			t.Errorf("%d requests, want %d", got, want)
		}
		for range 9 {
			a.pulls()
		}
	})
}

func TestOneFailureClosesNoReferrersRoute(t *testing.T) {
	failed := map[string]bool{}
	bubble(t, func(w http.ResponseWriter, req *http.Request) {
		if !failed[req.URL.Path] {
			failed[req.URL.Path] = true
			answer(w, http.StatusOK, "text/html", "<html>")
			return
		}
		answerEmptyList(w)
	}, func(t *testing.T, a asking, _ *wired) {
		for n := range 9 {
			if err := a.referrers("app", n); !errors.Is(err, ErrInvalidResponse) {
				t.Errorf("the page: %v", err)
			}
			a.open("app", n)
		}
	})
}

func TestALimitIsNoSignOfTheReferrersRoute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &fakeRegistry{answer: func(_ context.Context, n int) error {
			switch {
			case n <= referrersFailureThreshold:
				return unhealthy(&statusError{failedResponse{status: 502}, ErrUnavailable, "502"})
			case n == referrersFailureThreshold+1:
				return &RateLimitedError{RetryAfter: time.Minute}
			}
			return nil
		}}
		a := asking{t, Breaker(inner)}
		a.fails()
		a.closed("app", 1)
		time.Sleep(2 * minOpen)
		var limited *RateLimitedError
		for range 3 {
			if err := a.referrers("app", 1); !errors.As(err, &limited) {
				t.Errorf("limited: %v", err)
			}
		}
		time.Sleep(2 * time.Minute)
		a.open("app", 1)
		a.open("app", 2)
	})
}

func TestQuestionsThatFailTogetherCloseTheRouteForOneRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mended := make(chan struct{})
		inner := &fakeRegistry{answer: func(_ context.Context, n int) error {
			if n <= 9 {
				<-mended
				return ErrUnavailable
			}
			return nil
		}}
		a := asking{t, Breaker(inner)}
		var all []<-chan error
		for n := range 9 {
			all = append(all, a.later("app", n))
		}
		close(mended)
		for _, one := range all {
			<-one
		}
		a.closed("app", 0)
		time.Sleep(2 * minOpen)
		a.open("app", 0)
	})
}

func TestAQuestionThatHungSaysNothingMoreWhenItEnds(t *testing.T) {
	hangs := subjectOf(0).String()
	bubble(t, func(w http.ResponseWriter, req *http.Request) {
		if strings.HasSuffix(req.URL.Path, hangs) {
			late(req, time.Hour)
		}
		answerEmptyList(w)
	}, func(t *testing.T, a asking, _ *wired) {
		first := a.later("app", 0)
		time.Sleep(silentAfter + 2*maxOpen - 10*time.Second)
		a.open("app", 1)
		if err := <-first; !errors.Is(err, ErrTimeout) {
			t.Errorf("the first: %v", err)
		}
		a.open("app", 2)
	})
}

func TestACallerThatLeavesSaysNothingOfTheRoute(t *testing.T) {
	bubble(t, func(w http.ResponseWriter, req *http.Request) {
		if strings.HasSuffix(req.URL.Path, subjectOf(0).String()) {
			late(req, time.Hour)
		}
		answerEmptyList(w)
	}, func(t *testing.T, a asking, _ *wired) {
		for _, why := range []error{errors.New("it left"), ErrTimeout} {
			ctx, leave := context.WithTimeoutCause(t.Context(), silentAfter-time.Second, why)
			if _, err := a.r.Referrers(ctx, "app", subjectOf(0)); !errors.Is(err, why) {
				t.Error(err)
			}
			leave()
			a.open("app", 1)
			time.Sleep(2 * silentAfter)
			a.open("app", 1)
		}
	})
}

func TestAHostThatCannotBeReachedIsNotTheRoutesTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &fakeRegistry{answer: func(context.Context, int) error { return unhealthy(ErrRefused) }}
		a := asking{t, Breaker(inner)}
		for range failureThreshold {
			if err := a.referrers("app", 0); !errors.Is(err, ErrRefused) {
				t.Errorf("got %v", err)
			}
		}
		if _, err := a.r.Resolve(t.Context(), "app", "1"); err == nil || inner.count() != failureThreshold {
			t.Errorf("%v, asked %d times", err, inner.count())
		}
	})
}

func TestAQuestionAboutReferrersIsNoVerdictOnTheHost(t *testing.T) {
	for name, fails := range map[string]func(ctx context.Context) error{
		"a hang": func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"502": func(context.Context) error {
			return unhealthy(&statusError{failedResponse{status: 502}, ErrUnavailable, "502"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inner := &fakeRegistry{answer: func(ctx context.Context, n int) error {
					switch {
					case n <= failureThreshold:
						return unhealthy(ErrRefused)
					case n == failureThreshold+1:
						return fails(ctx)
					}
					return nil
				}}
				a := asking{t, Breaker(inner)}
				for range failureThreshold {
					_, _ = a.r.Resolve(t.Context(), "app", "1")
				}
				time.Sleep(2 * minOpen)
				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				done := make(chan struct{})
				go func() {
					defer close(done)
					_, _ = a.r.Referrers(ctx, "app", subjectOf(0))
				}()
				time.Sleep(silentAfter)
				synctest.Wait()
				a.pulls()
				leave()
				<-done
			})
		})
	}
}
