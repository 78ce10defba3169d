package upstream_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/upstream"
)

var noSubject = digest.FromString("subject")

// tokens answers a token server's question with the scope as the token.
func tokens(w http.ResponseWriter, r *http.Request) {
	say(w, http.StatusOK, "application/json", fmt.Sprintf(`{"token":%q}`, strings.ReplaceAll(r.URL.Path+" "+r.URL.Query().Get("scope"), " ", "|")))
}

// The challenge of this answer is followed: a registry may send each repository
// to a token server of its own.
func TestARealmForEachRepository(t *testing.T) {
	var s *scripted
	s = serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/token/") {
			if repo := strings.TrimPrefix(r.URL.Path, "/token/"); r.URL.Query().Get("scope") != "repository:"+repo+":pull" {
				say(w, http.StatusForbidden, "application/json", `{"errors":[{"code":"DENIED"}]}`)
				return
			}
			tokens(w, r)
			return
		}
		repo := strings.Split(r.URL.Path, "/")[2]
		if r.Header.Get("Authorization") != "Bearer /token/"+repo+"|repository:"+repo+":pull" {
			challenge(w, s.URL+"/token/"+repo, "repository:"+repo+":pull")
			return
		}
		saysManifest(w)
	})
	r := remote(t, s.URL, nil)
	for range 2 {
		s.transcript()
		for _, repo := range []string{"a", "b", "c"} {
			if _, err := r.Resolve(t.Context(), repo, "1"); err != nil {
				t.Errorf("%s: %v", repo, err)
			}
		}
	}
	// Each is remembered with its own.
	s.wantAsked(t, "HEAD /v2/a/manifests/1 Bearer", "HEAD /v2/b/manifests/1 Bearer", "HEAD /v2/c/manifests/1 Bearer")
}

// nvcr.io's realm changes, and what it says to an expired token is not what it
// says to none.
func TestARealmThatChangesWithAnExpiredToken(t *testing.T) {
	for name, toBad := range map[string]string{"a new one": "/token/new", "one that is gone": "/gone", "the old one": "/token/old"} {
		t.Run(name, func(t *testing.T) {
			var moved atomic.Bool
			var s *scripted
			s = serve(t, func(w http.ResponseWriter, r *http.Request) {
				given := r.Header.Get("Authorization")
				switch {
				case r.URL.Path == "/token/old" && moved.Load(), r.URL.Path == "/gone":
					say(w, http.StatusForbidden, "application/json", `{"errors":[{"code":"DENIED"}]}`)
				case strings.HasPrefix(r.URL.Path, "/token/"):
					tokens(w, r)
				case !moved.Load() && strings.HasPrefix(given, "Bearer /token/old"), moved.Load() && strings.HasPrefix(given, "Bearer /token/new"):
					saysManifest(w)
				case !moved.Load():
					challenge(w, s.URL+"/token/old", "repository:app:pull")
				case given != "":
					challenge(w, s.URL+toBad, "repository:app:pull")
				default:
					challenge(w, s.URL+"/token/new", "repository:app:pull")
				}
			})
			r := remote(t, s.URL, nil)
			if _, err := r.Resolve(t.Context(), "app", "1"); err != nil {
				t.Fatal(err)
			}
			moved.Store(true)
			for range 2 {
				if _, err := r.Resolve(t.Context(), "app", "1"); err != nil {
					t.Errorf("after the move: %v", err)
				}
			}
		})
	}
}

func TestARefusalOfTheTokenServerDoesNotOutliveTheMoment(t *testing.T) {
	var refuses atomic.Int32
	refuses.Store(1)
	var s *scripted
	s = serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token" && refuses.Add(-1) >= 0:
			say(w, http.StatusForbidden, "application/json", `{"details":"not now"}`)
		case r.URL.Path == "/token":
			tokens(w, r)
		case r.Header.Get("Authorization") == "":
			challenge(w, s.URL+"/token", "repository:app:pull")
		default:
			saysManifest(w)
		}
	})
	r := remote(t, s.URL, nil)
	if _, err := r.Resolve(t.Context(), "app", "1"); err != nil && (!errors.Is(err, upstream.ErrDenied) || !strings.Contains(err.Error(), "token server")) {
		t.Errorf("the refusal: %v", err)
	}
	if _, err := r.Resolve(t.Context(), "app", "1"); err != nil {
		t.Errorf("the next time: %v", err)
	}
}

// A token server that is down, limited or a page says nothing of the registry.
func TestATokenServersTroubleIsNotTheRegistrys(t *testing.T) {
	for name, answer := range map[string]func(w http.ResponseWriter){
		"500":    func(w http.ResponseWriter) { say(w, 500, "", "") },
		"a page": func(w http.ResponseWriter) { say(w, 403, "text/html", "<html>") },
		"429":    func(w http.ResponseWriter) { w.Header().Set("Retry-After", "60"); say(w, 429, "", "") },
	} {
		t.Run(name, func(t *testing.T) {
			var s *scripted
			s = serve(t, func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Path == "/token":
					answer(w)
				case strings.Contains(r.URL.Path, "/private/"):
					challenge(w, s.URL+"/token", "repository:private:pull")
				default:
					saysManifest(w)
				}
			})
			r := upstream.Breaker(remote(t, s.URL, nil))
			for range 10 {
				var limited *upstream.RateLimitedError
				if _, err := r.Resolve(t.Context(), "private", "1"); !errors.Is(err, upstream.ErrThirdParty) && !errors.As(err, &limited) {
					t.Errorf("got %v", err)
				}
			}
			asked := len(slices.DeleteFunc(s.transcript(), func(line string) bool { return !strings.HasPrefix(line, "GET /token") }))
			if limited := name == "429"; limited && asked != 1 {
				t.Errorf("a server that gives no tokens for a minute was asked for %d", asked)
			}
			if _, err := r.Resolve(t.Context(), "public", "1"); err != nil {
				t.Errorf("what needs no token: %v", err)
			}
		})
	}
}

// Artifactory hides what is private behind 404, and challenges only at /v2/.
func TestCredentialsAreSentWhereOnlyThePingAsksForThem(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		user, pass, _ := r.BasicAuth()
		known := user == "me" && pass == password
		switch {
		case r.URL.Path == "/v2/" && !known:
			w.Header().Set("WWW-Authenticate", `Basic realm="Artifactory"`)
			say(w, http.StatusUnauthorized, "application/json", `{"errors":[{"code":"UNAUTHORIZED"}]}`)
		case !known:
			say(w, http.StatusNotFound, "application/json", notThere)
		default:
			saysManifest(w)
		}
	})
	r := remote(t, s.URL, as("me", password))
	for range 2 {
		if _, err := r.Resolve(t.Context(), "app", "1"); err != nil {
			t.Error(err)
		}
	}
	s.wantAsked(t, "GET /v2/", "HEAD /v2/app/manifests/1 Basic", "HEAD /v2/app/manifests/1 Basic")
	if _, err := remote(t, s.URL, nil).Resolve(t.Context(), "app", "1"); !errors.Is(err, upstream.ErrNotFound) {
		t.Errorf("anonymously: %v", err)
	}
	if got := s.transcript(); strings.HasPrefix(got[0], "GET /v2/ ") || got[0] == "GET /v2/" {
		t.Error("without credentials there is nothing to ask /v2/ for")
	}
}

// A page that asks for a password is no registry that asks for one.
func TestAPageDoesNotChangeWhatIsShownToTheRegistry(t *testing.T) {
	var captured atomic.Bool
	var s *scripted
	s = serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case captured.Load():
			w.Header().Set("WWW-Authenticate", `Basic realm="guests"`)
			say(w, http.StatusUnauthorized, "text/html", "<html>sign in</html>")
		case r.URL.Path == "/token":
			tokens(w, r)
		case r.Header.Get("Authorization") == "":
			challenge(w, s.URL+"/token", "repository:app:pull")
		default:
			saysManifest(w)
		}
	})
	r := remote(t, s.URL, as("me", password))
	if _, err := r.Resolve(t.Context(), "app", "1"); err != nil {
		t.Fatal(err)
	}
	s.transcript()
	captured.Store(true)
	if _, err := r.Resolve(t.Context(), "app", "1"); !errors.Is(err, upstream.ErrInvalidResponse) {
		t.Errorf("got %v", err)
	}
	for _, line := range s.transcript() {
		if strings.HasSuffix(line, " Basic") && !strings.HasPrefix(line, "GET /token") {
			t.Errorf("the page was shown the password: %s", line)
		}
	}
	captured.Store(false)
	if _, err := r.Resolve(t.Context(), "app", "1"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// Not every registry knows a new token at once.
func TestATokenThatIsRefusedOnceIsNotTheLast(t *testing.T) {
	for refusals, denied := range map[int]bool{0: false, 1: false, 9: true} {
		var s *scripted
		left := refusals
		s = serve(t, func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/token":
				tokens(w, r)
			case r.Header.Get("Authorization") == "":
				challenge(w, s.URL+"/token", "repository:app:pull")
			case left > 0:
				left--
				challenge(w, s.URL+"/token", "repository:app:pull")
			default:
				saysManifest(w)
			}
		})
		c, err := remote(t, s.URL, nil).Manifest(t.Context(), "app", "1")
		if err == nil {
			c.Body.Close()
		}
		if errors.Is(err, upstream.ErrDenied) != denied || !denied && err != nil {
			t.Errorf("%d refusals: %v", refusals, err)
		}
		if asked := len(s.transcript()); asked > 8 {
			t.Errorf("%d refusals cost %d requests", refusals, asked)
		}
	}
}

// hides answers as a registry that hides what is private: 404 for whoever shows
// no token, and the challenge where it is asked for.
func hides(s **scripted, challengesAt string, token func(w http.ResponseWriter, r *http.Request)) func(w http.ResponseWriter, r *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			token(w, r)
		case strings.HasPrefix(r.Header.Get("Authorization"), "Bearer /token"):
			saysManifest(w)
		case r.URL.Path == challengesAt, r.Header.Get("Authorization") != "":
			challenge(w, (*s).URL+"/token", "repository:app:pull")
		default:
			say(w, http.StatusNotFound, "application/json", notThere)
		}
	}
}

// What a registry says to nobody is not what it says to somebody: an answer to
// a question without what it should have shown claims no absence.
func TestAnAnswerToNobodyIsNoAbsence(t *testing.T) {
	down := func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusServiceUnavailable, "", "") }
	t.Run("no token yet, and none to be had", func(t *testing.T) {
		var s *scripted
		s = serve(t, hides(&s, "/v2/", down))
		if _, err := remote(t, s.URL, as("me", password)).Manifest(t.Context(), "app", "1"); !errors.Is(err, upstream.ErrUnavailable) || errors.Is(err, upstream.ErrNotFound) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a token that is refused, and no other to be had", func(t *testing.T) {
		var revoked atomic.Bool
		var s *scripted
		sound := hides(&s, "/v2/", tokens)
		s = serve(t, func(w http.ResponseWriter, r *http.Request) {
			switch {
			case revoked.Load() && r.URL.Path == "/token":
				down(w, r)
			case revoked.Load() && r.Header.Get("Authorization") != "":
				challenge(w, s.URL+"/token", "repository:app:pull")
			default:
				sound(w, r)
			}
		})
		r := remote(t, s.URL, as("me", password))
		if c, err := r.Manifest(t.Context(), "app", "1"); err != nil {
			t.Fatal(err)
		} else {
			c.Body.Close()
		}
		revoked.Store(true)
		if _, err := r.Manifest(t.Context(), "app", "1"); !errors.Is(err, upstream.ErrUnavailable) || errors.Is(err, upstream.ErrNotFound) {
			t.Errorf("got %v", err)
		}
	})
	for name, answer := range map[string]func(w http.ResponseWriter){
		"503":               func(w http.ResponseWriter) { say(w, 503, "", "") },
		"a default backend": func(w http.ResponseWriter) { say(w, 404, "text/plain", "default backend - 404") },
		"a page":            func(w http.ResponseWriter) { say(w, 200, "text/html", "<html>") },
		"a limit":           func(w http.ResponseWriter) { say(w, 429, "", "") },
	} {
		t.Run("/v2/ is "+name+", once", func(t *testing.T) {
			var strange atomic.Bool
			strange.Store(true)
			var s *scripted
			sound := hides(&s, "/v2/", tokens)
			s = serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/v2/" && strange.Load() {
					answer(w)
					return
				}
				sound(w, r)
			})
			r := remote(t, s.URL, as("me", password))
			if _, err := r.Manifest(t.Context(), "app", "1"); !errors.Is(err, upstream.ErrUnavailable) || errors.Is(err, upstream.ErrNotFound) {
				t.Errorf("got %v", err)
			}
			strange.Store(false)
			c, err := r.Manifest(t.Context(), "app", "1")
			if got := read(t, c, err); got != manifestBody {
				t.Errorf("afterwards %q", got)
			}
		})
	}
}

func TestAnIngressInPlaceOfTheTokenServerRefusesNobody(t *testing.T) {
	for _, status := range []int{403, 404, 405} {
		var s *scripted
		s = serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/token" {
				say(w, status, "text/plain", "default backend - 404")
				return
			}
			challenge(w, s.URL+"/token", "repository:app:pull")
		})
		if _, err := remote(t, s.URL, nil).Manifest(t.Context(), "app", "1"); !errors.Is(err, upstream.ErrThirdParty) || errors.Is(err, upstream.ErrDenied) {
			t.Errorf("%d: %v", status, err)
		}
	}
}

// Each 401 may ask for something else, without end.
func TestAQuestionIsNotAskedForever(t *testing.T) {
	n := 0
	var s *scripted
	s = serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			tokens(w, r)
			return
		}
		n++
		challenge(w, s.URL+"/token", fmt.Sprintf("repository:app%d:pull", n))
	})
	if _, err := remote(t, s.URL, nil).Manifest(t.Context(), "app", "1"); !errors.Is(err, upstream.ErrDenied) {
		t.Errorf("got %v", err)
	}
	if n > 6 {
		t.Errorf("asked %d times", n)
	}
}

// Accounts are locked over wrong passwords.
func TestAWrongPasswordIsShownOnce(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
		say(w, http.StatusUnauthorized, "application/json", `{"errors":[{"code":"UNAUTHORIZED"}]}`)
	})
	r := remote(t, s.URL, as("me", password))
	for range 2 {
		s.transcript()
		if _, err := r.Manifest(t.Context(), "app", "1"); !errors.Is(err, upstream.ErrDenied) {
			t.Errorf("got %v", err)
		}
		if shown := strings.Count(strings.Join(s.transcript(), "\n")+"\n", " Basic\n"); shown != 1 {
			t.Errorf("the password was shown %d times for a question", shown)
		}
	}
}

func TestAPageDoesNotMoveTheTokenServer(t *testing.T) {
	var captured atomic.Bool
	var s *scripted
	s = serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/token"):
			tokens(w, r)
		case captured.Load():
			w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token-of-the-page",service="test"`, s.URL))
			say(w, http.StatusUnauthorized, "text/html", "<html>")
		case !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer /token|"):
			challenge(w, s.URL+"/token", "repository:"+strings.Split(r.URL.Path, "/")[2]+":pull")
		default:
			saysManifest(w)
		}
	})
	r := remote(t, s.URL, as("me", password))
	if _, err := r.Resolve(t.Context(), "app", "1"); err != nil {
		t.Fatal(err)
	}
	captured.Store(true)
	_, _ = r.Resolve(t.Context(), "app", "1")
	captured.Store(false)
	if _, err := r.Resolve(t.Context(), "other", "1"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	for _, line := range s.transcript() {
		if strings.HasPrefix(line, "GET /token-of-the-page") {
			t.Errorf("the page's token server was asked: %s", line)
		}
	}
}

// A registry behind nginx is asked for a password with a page of nginx's.
func TestAPageOfARegistryThatSaysWhatItIsMayAskForAPassword(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
		if user, pass, _ := r.BasicAuth(); user != "me" || pass != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="Registry"`)
			say(w, http.StatusUnauthorized, "text/html", "<html><center><h1>401 Authorization Required</h1></center></html>")
			return
		}
		saysManifest(w)
	})
	if _, err := remote(t, s.URL, as("me", password)).Resolve(t.Context(), "app", "1"); err != nil {
		t.Error(err)
	}
}

// A limit is a limit, whatever was shown.
func TestALimitIsReportedThoughNothingCouldBeShown(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			say(w, http.StatusBadGateway, "", "")
			return
		}
		w.Header().Set("Retry-After", "30")
		say(w, http.StatusTooManyRequests, "", "")
	})
	var limited *upstream.RateLimitedError
	if _, err := remote(t, s.URL, as("me", password)).Manifest(t.Context(), "app", "1"); !errors.As(err, &limited) {
		t.Errorf("got %v", err)
	}
}
