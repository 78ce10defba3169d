package upstream

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

// answerPage answers with one of so many pages, which has one referrer. Its name
// says the page, and a generation of the list.
func answerPage(w http.ResponseWriter, req *http.Request, pages, generation int) {
	n, err := strconv.Atoi(req.URL.Query().Get("page"))
	if err != nil {
		n = 1
	}
	if n < pages {
		w.Header().Set("Link", fmt.Sprintf(`<%s?page=%d>; rel="next"`, req.URL.Path, n+1))
	}
	answer(w, http.StatusOK, "application/vnd.oci.image.index.v1+json", fmt.Sprintf(
		`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"%s","size":5}]}`, subjectOf(1000*generation+n)))
}

// Issue 12, point 15: a list of 60 slow pages is answered in the end, and no
// page is asked for twice.
func TestAListOfManySlowPagesIsContinued(t *testing.T) {
	for _, each := range []time.Duration{3 * time.Second, 7 * time.Second} {
		slow := subjectOf(0).String()
		bubble(t, func(w http.ResponseWriter, req *http.Request) {
			if len(req.URL.Path) > 0 && req.URL.Path == "/v2/app/referrers/"+slow {
				late(req, each)
				answerPage(w, req, 60, 0)
				return
			}
			answerEmptyList(w)
		}, func(t *testing.T, a asking, w *wired) {
			began := time.Now()
			var list ReferrersList
			questions := 0
			for err := errors.New("not asked yet"); err != nil; {
				had := len(list.Manifests)
				if list, err = a.r.Referrers(t.Context(), "app", subjectOf(0)); err != nil && !errors.Is(err, ErrUnavailable) {
					t.Fatal(err)
				}
				if questions++; questions > 10 || err != nil && len(list.Manifests) <= had {
					t.Fatalf("question %d: %d referrers after %d, %v", questions, len(list.Manifests), had, err)
				}
				a.open("app", 1) // other subjects are answered
				a.pulls()
			}
			if len(list.Manifests) != 60 {
				t.Errorf("%d referrers", len(list.Manifests))
			}
			if first := began.Add(each); !list.At.Equal(first) {
				t.Errorf("the list is of %s, want the time of its first page, %s", list.At.Sub(began), first.Sub(began))
			}
			if got, most := w.count("/referrers/"+slow), 60+questions; got > most {
				t.Errorf("it took %d requests in %d questions, want at most %d", got, questions, most)
			}
			// The next list is another one.
			if _, err := a.r.Referrers(t.Context(), "app", subjectOf(0)); err == nil {
				t.Error("a list of 60 slow pages came at once: the one before was kept")
			}
		})
	}
}

// What has come is forgotten after a while, and where there is too much of it.
func TestPagesAreKeptForABoundedTimeAndNumber(t *testing.T) {
	generation, broken := 1, true
	bubble(t, func(w http.ResponseWriter, req *http.Request) {
		if broken && req.URL.RawQuery != "" {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		answerPage(w, req, 2, generation)
	}, func(t *testing.T, a asking, _ *wired) {
		first := func(n int) Digest {
			list, err := a.r.Referrers(t.Context(), fmt.Sprint("repo", n), subjectOf(0))
			if len(list.Manifests) == 0 {
				t.Fatal(err)
			}
			return list.Manifests[0].Digest
		}
		first(0)
		generation = 2
		time.Sleep(listingTime - time.Minute)
		if got := first(0); got != subjectOf(1001) {
			t.Errorf("before its time is over it began anew: %s", got)
		}
		time.Sleep(listingTime + time.Minute)
		if got := first(0); got != subjectOf(2001) {
			t.Errorf("after its time it is continued: %s", got)
		}
		for n := range maxListings {
			first(n + 1)
		}
		generation, broken = 3, false
		if got := first(maxListings); got != subjectOf(2001) {
			t.Errorf("the newest began anew: %s", got)
		}
		if got := first(0); got != subjectOf(3001) {
			t.Errorf("the oldest is kept beyond their number: %s", got)
		}
	})
}

func TestTheBytesOfPagesThatAreKeptAreBounded(t *testing.T) {
	var s listings
	for n := range 10 {
		l := newListing()
		l.bytes, l.until = maxList/4, time.Now().Add(time.Hour)
		s.put(content{"app", fmt.Sprint(n)}, l)
	}
	for n := range 10 {
		if _, kept := s.take(content{"app", fmt.Sprint(n)}); kept != (n >= 6) {
			t.Errorf("list %d of 10 is kept: %t", n, kept)
		}
	}
}

// A cursor that has expired begins the list anew, in the same question.
func TestAPageThatTheRegistryNoLongerKnowsBeginsTheListAnew(t *testing.T) {
	broken, expired := true, false
	bubble(t, func(w http.ResponseWriter, req *http.Request) {
		switch {
		case req.URL.RawQuery != "" && broken:
			w.WriteHeader(http.StatusInternalServerError)
		case req.URL.RawQuery != "" && expired:
			expired = false
			answer(w, http.StatusBadRequest, "application/json", `{"errors":[{"code":"PAGINATION_NUMBER_INVALID"}]}`)
		default:
			answerPage(w, req, 3, 0)
		}
	}, func(t *testing.T, a asking, _ *wired) {
		if list, err := a.r.Referrers(t.Context(), "app", subjectOf(0)); err == nil || len(list.Manifests) != 1 {
			t.Fatalf("%v, %v", list, err)
		}
		broken, expired = false, true
		began := time.Now()
		if list, err := a.r.Referrers(t.Context(), "app", subjectOf(0)); err != nil || len(list.Manifests) != 3 || list.At.Before(began) {
			t.Errorf("%+v, %v", list, err)
		}
	})
}

// Issue 12, point 22: a list that ends nowhere costs its pages once.
func TestAListWithoutEndIsBoundedAndRemembered(t *testing.T) {
	bubble(t, func(w http.ResponseWriter, req *http.Request) { answerPage(w, req, 1<<30, 0) }, func(t *testing.T, a asking, w *wired) {
		for range 5 {
			list, err := a.r.Referrers(t.Context(), "app", subjectOf(0))
			if !errors.Is(err, ErrInvalidResponse) || len(list.Manifests) != maxPages {
				t.Errorf("%d referrers, %v", len(list.Manifests), err)
			}
			time.Sleep(time.Minute)
		}
		if got := w.count("/referrers/"); got != maxPages {
			t.Errorf("five questions took %d requests, want %d", got, maxPages)
		}
		time.Sleep(listingTime)
		if list, _ := a.r.Referrers(t.Context(), "app", subjectOf(0)); len(list.Manifests) != maxPages || w.count("/referrers/") != 2*maxPages {
			t.Error("it is not asked for again after a while")
		}
	})
}

// Lists that can't be read close no route: each of their pages is an answer.
func TestListsThatLeadNowhereCloseNoRoute(t *testing.T) {
	bubble(t, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/v2/odd/referrers/"+subjectOf(0).String() {
			w.Header().Set("Link", "what is this")
		}
		answerEmptyList(w)
	}, func(t *testing.T, a asking, _ *wired) {
		for range 9 {
			if err := a.referrers("odd", 0); !errors.Is(err, ErrInvalidResponse) {
				t.Error(err)
			}
		}
		a.open("app", 1)
	})
}

// It is a page that is slow, not the list: a page that comes opens the route to
// other subjects.
func TestWhileAListOfManyPagesComesOtherSubjectsAreAnswered(t *testing.T) {
	slow := "/v2/app/referrers/" + subjectOf(0).String()
	bubble(t, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == slow {
			late(req, 7*time.Second)
			answerPage(w, req, 9, 0)
			return
		}
		answerEmptyList(w)
	}, func(t *testing.T, a asking, _ *wired) {
		first := a.later("app", 0)
		for range 5 {
			time.Sleep(7 * time.Second)
			synctest.Wait()
			a.open("app", 1)
		}
		if err := <-first; err != nil {
			t.Error(err)
		}
	})
}

func TestTheListThatHasComeFurtherIsKept(t *testing.T) {
	var s listings
	of := content{"app", "x"}
	for _, pages := range []int{2, 5, 3} {
		l := newListing()
		l.until = time.Now().Add(time.Hour)
		for n := range pages {
			l.visited[strconv.Itoa(n)] = true
		}
		s.put(of, l)
	}
	if l, kept := s.take(of); !kept || len(l.visited) != 5 {
		t.Errorf("kept: %t, with %d pages", kept, len(l.visited))
	}
}

// A page that never comes does not keep what came before it alive, however often
// it is asked for.
func TestAListThatGetsNoFurtherIsForgotten(t *testing.T) {
	generation := 1
	bubble(t, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.RawQuery != "" {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		answerPage(w, req, 2, generation)
	}, func(t *testing.T, a asking, _ *wired) {
		began := time.Now()
		for time.Since(began) < listingTime+3*time.Minute {
			list, err := a.r.Referrers(t.Context(), "app", subjectOf(0))
			if err == nil || len(list.Manifests) == 1 && time.Since(list.At) > listingTime {
				t.Fatalf("after %s: a list of %s, %v", time.Since(began), time.Since(list.At), err)
			}
			generation = 2
			time.Sleep(time.Minute)
		}
		if list, _ := a.r.Referrers(t.Context(), "app", subjectOf(0)); len(list.Manifests) != 1 || list.Manifests[0].Digest != subjectOf(2001) {
			t.Errorf("it was not begun anew: %v", list)
		}
	})
}

// What was kept of a list may be older than what is asked for: then the list is
// read once more when it is complete. The old one is better than none.
func TestAContinuedListThatIsTooOldIsReadOnceMore(t *testing.T) {
	for name, c := range map[string]struct {
		maxAge  time.Duration // of the wish; negative for none
		fails   bool          // the second page fails again, once it has come
		denied  bool          // the first page is refused, once the second has come
		isStale bool          // a mirror could not ask when it sent the first page
		want    string        // the first referrer; empty for an error
		pages   int           // how many are requested
	}{
		"nothing is wished":                       {maxAge: -1, want: "1001", pages: 1},
		"as old as is wished":                     {maxAge: 61 * time.Second, want: "1001", pages: 1},
		"older than is wished":                    {maxAge: 59 * time.Second, want: "2001", pages: 3},
		"it cannot be read once more":             {maxAge: 0, fails: true, want: "1001", pages: 3},
		"it is refused when it is read once more": {maxAge: 0, denied: true, pages: 2},
		"the mirror that sent it could not ask":   {maxAge: -1, isStale: true, want: "2001", pages: 3},
	} {
		t.Run(name, func(t *testing.T) {
			generation, broken, second := 1, true, 0
			bubble(t, func(w http.ResponseWriter, req *http.Request) {
				later := req.URL.RawQuery != ""
				if later {
					second++
				}
				switch {
				case later && (broken || c.fails && second > 2):
					w.WriteHeader(http.StatusInternalServerError)
					return
				case !later && c.denied && !broken:
					answer(w, http.StatusForbidden, "application/json", `{"errors":[{"code":"DENIED"}]}`)
					return
				case c.isStale && broken:
					w.Header().Set("Warning", `110 - "Response is Stale"`)
				}
				answerPage(w, req, 2, generation)
			}, func(t *testing.T, a asking, wired *wired) {
				if list, err := a.r.Referrers(t.Context(), "app", subjectOf(0)); err == nil || len(list.Manifests) != 1 {
					t.Fatalf("%v, %v", list, err)
				}
				time.Sleep(time.Minute)
				generation, broken, second = 2, false, 1
				before, ctx := wired.count("/referrers/"), t.Context()
				if c.maxAge >= 0 {
					ctx = WithMaxAge(ctx, c.maxAge)
				}
				list, err := a.r.Referrers(ctx, "app", subjectOf(0))
				first, _ := strconv.Atoi(c.want)
				switch {
				case c.want == "" && !errors.Is(err, ErrDenied):
					t.Errorf("%v, %v", list, err)
				case c.want != "" && (err != nil || len(list.Manifests) != 2 || list.Manifests[0].Digest != subjectOf(first)):
					t.Errorf("%v, %v", list, err)
				case c.want != "" && (time.Since(list.At) < time.Minute) != (first > 2000):
					t.Errorf("it is said to be %s old", time.Since(list.At))
				case list.Stale:
					t.Error("it is stale")
				}
				if got := wired.count("/referrers/") - before; got != c.pages {
					t.Errorf("%d pages are requested, want %d", got, c.pages)
				}
			})
		})
	}
}
