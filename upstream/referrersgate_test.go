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

// asking is a registry with all its policies, and what was asked of it.
type asking struct {
	t *testing.T
	r Endpoint
}

func (a asking) referrers(repo string, n int) error {
	_, err := a.r.Referrers(a.t.Context(), repo, subjectOf(n))
	return err
}

// later asks in the background, as a mirror does whose client has left.
func (a asking) later(repo string, n int) <-chan error {
	done := make(chan error, 1)
	go func() { done <- a.referrers(repo, n) }()
	synctest.Wait()
	return done
}

// closed fails the test where the route answers anything else than at once that
// nothing is known.
func (a asking) closed(repo string, n int) {
	a.t.Helper()
	began := time.Now()
	err := a.referrers(repo, n)
	if took := time.Since(began); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "its Referrers API does not answer") || took != 0 {
		a.t.Errorf("subject %d of %s: %v after %s", n, repo, err, took)
	}
}

func (a asking) open(repo string, n int) {
	a.t.Helper()
	if err := a.referrers(repo, n); err != nil {
		a.t.Errorf("subject %d of %s: %v", n, repo, err)
	}
}

// fails asks until the route closes.
func (a asking) fails() {
	a.t.Helper()
	for n := range referrersFailureThreshold {
		if err := a.referrers("app", n); !errors.Is(err, ErrUnavailable) {
			a.t.Errorf("subject %d: %v", n, err)
		}
	}
}

func (a asking) pulls() {
	a.t.Helper()
	began := time.Now()
	c, err := a.r.Manifest(a.t.Context(), "app", "1")
	if took := time.Since(began); err != nil || took > time.Second {
		a.t.Fatalf("a manifest: %v after %s", err, took)
	}
	c.Body.Close()
}

func withPolicies(e Endpoint) Endpoint { return NewSlots(32).LimitEndpoint(Breaker(Retry(e))) }

// onRoute answers the Referrers API by a function, and everything else well.
func onRoute(api http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		if strings.Contains(req.URL.Path, "/referrers/") {
			api(w, req)
			return
		}
		answerManifest(w)
	}
}

// bubble runs a test against an upstream whose Referrers API answers by a
// function.
func bubble(t *testing.T, api http.HandlerFunc, test func(t *testing.T, a asking, w *wired)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		remote, w := reach(t, onRoute(api))
		test(t, asking{t, withPolicies(remote)}, w)
	})
}

func TestAReferrersAPIThatFailsIsAskedAHandfulOfTimes(t *testing.T) {
	for name, c := range map[string]struct {
		api  http.HandlerFunc
		asks int // each question that is let through
	}{
		"502":       {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, 2},
		"504":       {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGatewayTimeout) }, 2},
		"a hang-up": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 2},
		"half a list": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.WriteHeader(http.StatusOK)
			_, _ = w.Write([]byte(`{"schemaVersion":2`))
		}, 2},
		"a page": {func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "text/html", "<html>") }, 1},
		"a refusal that is a page": {func(w http.ResponseWriter, _ *http.Request) {
			answer(w, http.StatusForbidden, "text/html", "<html>")
		}, 1},
		"no index": {func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "application/json", "{}") }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, c.api, func(t *testing.T, a asking, w *wired) {
				a.fails()
				for n := referrersFailureThreshold; n < 9; n++ {
					a.closed("app", n)
				}
				if got, want := w.count("/referrers/"), referrersFailureThreshold*c.asks; got != want {
					t.Errorf("nine subjects cost %d requests, want %d", got, want)
				}
				// Who goes on asking gets a try after a second, two, four …
				for range 10 * 60 {
					time.Sleep(time.Second)
					_ = a.referrers("app", 1)
				}
				if got, most := w.count("/referrers/"), c.asks*45; got > most {
					t.Errorf("ten minutes cost %d requests, want %d at most", got, most)
				}
				// It says nothing of the host.
				for range 9 {
					a.pulls()
				}
			})
		})
	}
}

func TestAReferrersAPIThatHangsCostsOnePullItsWait(t *testing.T) {
	bubble(t, func(_ http.ResponseWriter, req *http.Request) { late(req, time.Hour) }, func(t *testing.T, a asking, w *wired) {
		began := time.Now()
		first := a.later("app", 0)
		time.Sleep(silentAfter)
		synctest.Wait()
		for n := 1; n < 9; n++ {
			a.closed("app", n)
		}
		a.pulls()
		time.Sleep(maxOpen/2 - time.Second)
		a.closed("app", 9)
		if err := <-first; !errors.Is(err, ErrTimeout) {
			t.Errorf("the first: %v", err)
		}
		if took := time.Since(began); took != 60*time.Second {
			t.Errorf("it took %s, want a minute", took)
		}
		if got := w.count("/referrers/"); got != 1 {
			t.Errorf("ten subjects cost %d requests, want 1", got)
		}
		a.pulls()
	})
}

// As many questions as there are places for them hang: the others are still
// answered at once.
func TestWhatIsAnsweredAtOnceWaitsForNoPlace(t *testing.T) {
	bubble(t, func(_ http.ResponseWriter, req *http.Request) { late(req, time.Hour) }, func(t *testing.T, a asking, w *wired) {
		var all []<-chan error
		for n := range 8 {
			all = append(all, a.later("app", n))
		}
		time.Sleep(silentAfter)
		synctest.Wait()
		a.closed("app", 8)
		for _, one := range all {
			<-one
		}
		if got := w.count("/referrers/"); got != 8 {
			t.Errorf("%d requests, want 8", got)
		}
	})
}

func TestAListThatComesLateOpensTheRouteAgain(t *testing.T) {
	for _, after := range []time.Duration{11 * time.Second, 30 * time.Second, 59 * time.Second} {
		slow := subjectOf(0).String()
		bubble(t, func(w http.ResponseWriter, req *http.Request) {
			if strings.HasSuffix(req.URL.Path, slow) {
				late(req, after)
			}
			answerEmptyList(w)
		}, func(t *testing.T, a asking, w *wired) {
			began := time.Now()
			first := a.later("app", 0)
			time.Sleep(silentAfter)
			synctest.Wait()
			a.closed("app", 1)
			if err := <-first; err != nil || time.Since(began) != after {
				t.Errorf("%v after %s, want a list after %s", err, time.Since(began), after)
			}
			a.open("app", 1)
			a.open("other", 2)
			if got := w.count("/referrers/"); got != 3 {
				t.Errorf("%d requests, want 3", got)
			}
		})
	}
}

func TestARestIsTwiceAsLongAfterEachProbeThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failing := true
		inner := &fakeRegistry{answer: func(context.Context, int) error {
			if failing {
				return unhealthy(&statusError{failedResponse{status: 503}, ErrUnavailable, "503"})
			}
			return nil
		}}
		a := asking{t, Breaker(inner)}
		a.fails()
		for n, rest := range []time.Duration{1, 2, 4, 8, 16, 30, 30, 30} {
			rest *= time.Second
			time.Sleep(rest/2 - time.Millisecond)
			a.closed("app", 0)
			time.Sleep(rest + time.Millisecond)
			_ = a.referrers("app", 10+n) // the one that tries
			a.closed("app", 0)
			if got := inner.count(); got != referrersFailureThreshold+n+1 {
				t.Fatalf("after a rest of %s, asked %d times in all, want %d", rest, got, referrersFailureThreshold+n+1)
			}
		}
		failing = false
		time.Sleep(2 * maxOpen)
		for range 3 {
			a.open("app", 0)
		}
		failing = true // and it begins with a short rest again
		a.fails()
		a.closed("app", 0)
		time.Sleep(2 * minOpen)
		failing = false
		a.open("app", 0)
	})
}

func TestARouteThatWasSilentIsNotTriedTwiceInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		inner := &fakeRegistry{answer: func(_ context.Context, n int) error {
			if n == 1 {
				<-release
			}
			return ErrUnavailable
		}}
		a := asking{t, Breaker(inner)}
		first := a.later("app", 0)
		time.Sleep(silentAfter + 2*maxOpen)
		_ = a.referrers("app", 1) // the one that tries
		a.closed("app", 2)
		close(release)
		<-first
	})
}

func TestOneQuestionAtATimeTriesARouteThatRested(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		inner := &fakeRegistry{answer: func(_ context.Context, n int) error {
			if n <= referrersFailureThreshold {
				return unhealthy(&statusError{failedResponse{status: 503}, ErrUnavailable, "503"})
			}
			<-release
			return nil
		}}
		a := asking{t, Breaker(inner)}
		a.fails()
		time.Sleep(2 * minOpen)
		probe := a.later("app", 0)
		a.closed("app", 1)
		close(release)
		if err := <-probe; err != nil {
			t.Error(err)
		}
		a.open("app", 1)
	})
}

func TestTheSecondEndpointAnswersAtOnceWhileTheFirstOneDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, atFirst := reach(t, onRoute(func(_ http.ResponseWriter, req *http.Request) { late(req, time.Hour) }))
		second, atSecond := reach(t, onRoute(func(w http.ResponseWriter, req *http.Request) { answerPage(w, req, 1, 0) }))
		slots := NewSlots(32)
		a := asking{t, slots.LimitEndpoint(Breaker(Retry(first)))}
		other := slots.LimitEndpoint(Breaker(Retry(second)))
		one := a.later("app", 0)
		time.Sleep(silentAfter)
		synctest.Wait()
		for n := 1; n < 9; n++ {
			began := time.Now()
			if _, err := a.r.Referrers(t.Context(), "app", subjectOf(n)); !errors.Is(err, ErrUnavailable) {
				t.Errorf("subject %d, the first: %v", n, err)
			}
			list, err := other.Referrers(t.Context(), "app", subjectOf(n))
			if took := time.Since(began); took != 0 || len(list.Manifests) != 1 || err != nil {
				t.Errorf("subject %d: %d referrers, %v after %s", n, len(list.Manifests), err, took)
			}
		}
		if err := <-one; !errors.Is(err, ErrTimeout) {
			t.Errorf("the first: %v", err)
		}
		if atFirst.count("/referrers/") != 1 || atSecond.count("/referrers/") != 8 {
			t.Errorf("asked %d and %d times", atFirst.count("/referrers/"), atSecond.count("/referrers/"))
		}
	})
}
