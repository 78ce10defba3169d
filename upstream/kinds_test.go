package upstream

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// questions are what a mirror asks of a registry, by kind.
func questions(r Endpoint, t *testing.T, repo string) map[requestKind]func() error {
	return map[requestKind]func() error{
		images: func() error {
			c, err := r.Manifest(t.Context(), repo, "1")
			if err != nil {
				return err
			}
			c.Body.Close()
			if _, err := r.Resolve(t.Context(), repo, "1"); err != nil {
				return err
			}
			c, err = r.Blob(t.Context(), repo, subjectOf(1), 0, -1)
			if err == nil {
				c.Body.Close()
			}
			return err
		},
		referrersTags: func() error {
			c, err := r.Manifest(t.Context(), repo, "sha256-"+subjectOf(1).Encoded())
			if err == nil {
				c.Body.Close()
			}
			return err
		},
		tagLists:     func() error { _, err := r.Tags(t.Context(), repo, nil); return err },
		referrersAPI: func() error { _, err := r.Referrers(t.Context(), repo, subjectOf(1)); return err },
	}
}

func kindOfRequest(req *http.Request) requestKind {
	switch {
	case strings.Contains(req.URL.Path, "/referrers/"):
		return referrersAPI
	case strings.Contains(req.URL.Path, "/manifests/sha256-"):
		return referrersTags
	case strings.HasSuffix(req.URL.Path, "/tags/list"):
		return tagLists
	}
	return images
}

// Issue 12, point 21: Docker asks for referrers at each pull. Whatever befalls
// one kind of questions, the others go on; and the reverse.
func TestAFailureOfOneKindOfQuestionStopsNoOther(t *testing.T) {
	for name, fail := range map[string]func(w http.ResponseWriter){
		"429 for an hour": func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "3600")
			answer(w, http.StatusTooManyRequests, "application/json", `{"errors":[{"code":"TOOMANYREQUESTS"}]}`)
		},
		"500": func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) },
		"503": func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) },
		"a page": func(w http.ResponseWriter) {
			answer(w, http.StatusForbidden, "text/html", "<html>")
		},
	} {
		for failing := range requestKinds {
			if failing == images && name == "503" {
				continue // then the host is away (decision 7)
			}
			t.Run(fmt.Sprintf("%s of kind %d", name, failing), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					remote, _ := reach(t, func(w http.ResponseWriter, req *http.Request) {
						switch kind := kindOfRequest(req); {
						case kind == failing:
							fail(w)
						case kind == referrersAPI:
							answerEmptyList(w)
						case kind == tagLists:
							answer(w, http.StatusOK, "application/json", `{"tags":[]}`)
						default:
							answerManifest(w)
						}
					})
					r := withPolicies(remote)
					for range 3 {
						for n := range 2 * failureThreshold {
							if err := questions(r, t, fmt.Sprint("repo", n))[failing](); err == nil {
								t.Fatal("it does not fail")
							}
						}
						for kind, ask := range questions(r, t, "app") {
							if err := ask(); (err != nil) != (kind == failing) {
								t.Fatalf("a question of kind %d: %v", kind, err)
							}
						}
						time.Sleep(time.Minute)
					}
				})
			})
		}
	}
}

// A kind that fails is asked a handful of times, and each half minute.
func TestAKindOfQuestionThatFailsIsNotAskedAgainAndAgain(t *testing.T) {
	for failing := range referrersAPI {
		synctest.Test(t, func(t *testing.T) {
			broken := true
			remote, w := reach(t, func(w http.ResponseWriter, req *http.Request) {
				switch {
				case broken && kindOfRequest(req) == failing:
					w.WriteHeader(http.StatusInternalServerError)
				case kindOfRequest(req) == tagLists:
					answer(w, http.StatusOK, "application/json", `{"tags":[]}`)
				default:
					answerManifest(w)
				}
			})
			r := Breaker(remote)
			for n := range 100 {
				if err := questions(r, t, fmt.Sprint("repo", n))[failing](); !errors.Is(err, ErrUnavailable) {
					t.Fatal(err)
				}
			}
			if got := w.count("repo"); got != failureThreshold {
				t.Errorf("kind %d: a hundred questions cost %d requests, want %d", failing, got, failureThreshold)
			}
			time.Sleep(2 * maxOpen)
			broken = false
			if err := questions(r, t, "app")[failing](); err != nil {
				t.Errorf("kind %d, mended: %v", failing, err)
			}
		})
	}
}
