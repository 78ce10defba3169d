package upstream

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A mirror answers 503 for a subject of which it knows nothing, and lists for
// the others what it has.
func TestASubjectThatFailsClosesTheRouteForNoOther(t *testing.T) {
	for name, fails := range map[string]http.HandlerFunc{
		"503":    func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
		"a page": func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "text/html", "<html>") },
		"500":    func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"a hang-up": func(http.ResponseWriter, *http.Request) {
			panic(http.ErrAbortHandler)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, unlessHealthy(fails, 1, 2, 3), func(t *testing.T, a asking, w *wired) {
				for range 2 * failureThreshold {
					if err := a.referrers("app", 0); !errors.Is(err, ErrUnavailable) {
						t.Errorf("the one that fails: %v", err)
					}
				}
				a.open("app", 1)
				for range 60 {
					time.Sleep(time.Second)
					_ = a.referrers("app", 0)
				}
				a.open("app", 2)
				for range 60 {
					time.Sleep(time.Second)
					_ = a.referrers("app", 0)
				}
				a.open("app", 3)
				// It has a gate of its own.
				if got := w.count("/referrers/"); got > 3+2*14 {
					t.Errorf("two minutes cost %d requests", got)
				}
			})
		})
	}
}

// After a failure of the whole API the subject that fails for good may be the
// one that probes.
func TestASubjectThatFailsForGoodDoesNotKeepTheRouteClosed(t *testing.T) {
	for name, fails := range map[string]http.HandlerFunc{
		"503":    func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
		"a hang": func(_ http.ResponseWriter, req *http.Request) { late(req, time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			mended := false
			bubble(t, func(w http.ResponseWriter, req *http.Request) {
				if mended {
					unlessHealthy(fails, 1, 2, 3)(w, req)
					return
				}
				w.WriteHeader(http.StatusServiceUnavailable)
			}, func(t *testing.T, a asking, _ *wired) {
				a.fails()
				a.closed("app", 3)
				mended = true
				for range 20 {
					time.Sleep(10 * time.Second)
					a.later("app", 0)
				}
				time.Sleep(silentAfter)
				synctest.Wait()
				for n := 1; n <= 3; n++ {
					a.open("app", n)
				}
				time.Sleep(2 * time.Minute) // the last ones end
			})
		})
	}
}

// What failed together with the API is asked again as soon as that answers.
func TestSubjectsThatFailedWithTheRouteAreAskedAgainWithIt(t *testing.T) {
	mended := false
	bubble(t, func(w http.ResponseWriter, _ *http.Request) {
		if !mended {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		answerEmptyList(w)
	}, func(t *testing.T, a asking, _ *wired) {
		for range 20 {
			for n := range 3 {
				_ = a.referrers("app", n)
			}
			time.Sleep(time.Second)
		}
		mended = true
		for a.referrers("app", 3) != nil {
			time.Sleep(time.Second)
		}
		for n := range 3 {
			a.open("app", n)
		}
	})
}

// As many subjects as that are the API: they are not asked about one by one.
func TestManySubjectsThatFailAreTheRoute(t *testing.T) {
	bubble(t, unlessHealthy(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }), func(t *testing.T, a asking, w *wired) {
		for n := range 600 {
			time.Sleep(time.Second)
			_ = a.referrers("app", n%100)
		}
		if got := w.count("/referrers/"); got > 2*45 {
			t.Errorf("ten minutes cost %d requests, want %d at most", got, 2*45)
		}
	})
}

func TestTheGatesOfSubjectsAreBounded(t *testing.T) {
	r := &referrersGate{}
	for n := range 3 * maxSubjectGates {
		r.record(&admission{probesReferrers: true, subject: content{"app", subjectOf(n).String()}}, ErrUnavailable)
	}
	if len(r.subjects) > maxSubjectGates || len(r.failing) > maxFailingSubjects {
		t.Errorf("%d gates, %d subjects", len(r.subjects), len(r.failing))
	}
}

// unlessHealthy answers well about some subjects.
func unlessHealthy(fails http.HandlerFunc, healthy ...int) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		for _, n := range healthy {
			if strings.HasSuffix(req.URL.Path, subjectOf(n).String()) {
				answerEmptyList(w)
				return
			}
		}
		fails(w, req)
	}
}
