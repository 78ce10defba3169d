package upstream_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/upstream"
)

var noTime time.Time

// Only the registry speaks for the registry (W45): what storage behind a
// redirect says is neither an absence, nor a refusal, nor a limit.
func TestWhatStorageSaysIsNotTheRegistrysWord(t *testing.T) {
	for _, status := range []int{400, 401, 403, 404, 410, 429, 500, 503} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			store := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("WWW-Authenticate", `Basic realm="storage"`)
				say(w, status, "application/json", notThere)
			})
			registry := serve(t, func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, store.URL+"/bucket", http.StatusTemporaryRedirect)
			})
			r := remote(t, registry.URL, nil)
			d := digest.FromString("layer")
			for name, ask := range map[string]func() error{
				"Manifest":    func() error { _, err := r.Manifest(t.Context(), "app", "1"); return err },
				"Resolve":     func() error { _, err := r.Resolve(t.Context(), "app", "1"); return err },
				"Blob":        func() error { _, err := r.Blob(t.Context(), "app", d, 0, -1); return err },
				"ResolveBlob": func() error { _, err := r.ResolveBlob(t.Context(), "app", d); return err },
			} {
				var limited *upstream.RateLimitedError
				err := ask()
				if !errors.Is(err, upstream.ErrThirdParty) || errors.Is(err, upstream.ErrNotFound) || errors.Is(err, upstream.ErrDenied) || errors.As(err, &limited) {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
}

// W34: a registry that sends whoever has not signed in to its web site says
// nothing of what was asked for, whatever that site says to a program.
func TestWhatTheRegistrysWebSiteSaysIsNotItsWord(t *testing.T) {
	for _, c := range []struct {
		status          int
		mediaType, body string
	}{
		{404, "text/plain", "404 page not found"},
		{404, "application/json", notThere},
		{404, "", ""},
		{410, "", ""},
		{401, "application/json", "{}"},
		{403, "application/json", `{"errors":[{"code":"DENIED"}]}`},
	} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/v2/":
				say(w, http.StatusOK, "application/json", "{}")
			case strings.HasSuffix(r.URL.Path, "/tags/list"):
				say(w, http.StatusOK, "application/json", `{"name":"app","tags":["2"]}`)
			case r.URL.Path == "/sign-in":
				say(w, c.status, c.mediaType, c.body)
			default:
				http.Redirect(w, r, "/sign-in", http.StatusFound)
			}
		})
		r := remote(t, s.URL, nil)
		for name, ask := range map[string]func() error{
			"Manifest": func() error { _, err := r.Manifest(t.Context(), "app", "1"); return err },
			"Resolve":  func() error { _, err := r.Resolve(t.Context(), "app", "1"); return err },
			"Blob":     func() error { _, err := r.Blob(t.Context(), "app", digest.FromString("layer"), 0, -1); return err },
		} {
			if err := ask(); !errors.Is(err, upstream.ErrThirdParty) || errors.Is(err, upstream.ErrNotFound) || errors.Is(err, upstream.ErrDenied) {
				t.Errorf("%s: %d %q: %v", name, c.status, c.body, err)
			}
		}
	}
}

func TestTheRegistryIsAskedForAFreshAddress(t *testing.T) {
	store := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/expired" {
			say(w, http.StatusForbidden, "application/xml", "<Error><Code>AccessDenied</Code></Error>")
			return
		}
		say(w, http.StatusOK, "binary/octet-stream", "layer")
	})
	asked := 0
	registry := serve(t, func(w http.ResponseWriter, r *http.Request) {
		to := "/expired"
		if asked++; asked > 1 {
			to = "/fresh"
		}
		http.Redirect(w, r, store.URL+to, http.StatusTemporaryRedirect)
	})
	r := upstream.Breaker(upstream.Retry(remote(t, registry.URL, nil)))
	c, err := r.Blob(t.Context(), "app", digest.FromString("layer"), 0, -1)
	if got := read(t, c, err); got != "layer" {
		t.Errorf("got %q", got)
	}
}

func TestAStoreThatIsDownOpensNoBreaker(t *testing.T) {
	store := serve(t, func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusServiceUnavailable, "", "") })
	registry := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			http.Redirect(w, r, store.URL, http.StatusTemporaryRedirect)
			return
		}
		saysManifest(w)
	})
	r := upstream.Breaker(remote(t, registry.URL, nil))
	for range 20 {
		if _, err := r.Blob(t.Context(), "app", digest.FromString("layer"), 0, -1); !errors.Is(err, upstream.ErrUnavailable) {
			t.Fatal(err)
		}
	}
	if _, err := r.Resolve(t.Context(), "app", "1"); err != nil {
		t.Errorf("the registry itself: %v", err)
	}
}

// registry.k8s.io redirects everything to a registry that wants a token of its
// own: it is asked for as anybody would, never with our credentials.
func TestARegistryThatLeadsToAnother(t *testing.T) {
	subject := digest.FromString("subject")
	var behind *scripted
	behind = serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			if r.Header.Get("Authorization") != "" {
				t.Error("the other's token server is shown credentials")
			}
			say(w, http.StatusOK, "application/json", `{"token":"theirs"}`)
		case r.Header.Get("Authorization") != "Bearer theirs":
			challenge(w, behind.URL+"/token", "repository:images/app:pull")
		case strings.Contains(r.URL.Path, "/referrers/"):
			say(w, http.StatusOK, indexType, `{"schemaVersion":2,"manifests":[{"mediaType":"`+manifestType+`","digest":"`+subject.String()+`","size":7}]}`)
		case strings.HasSuffix(r.URL.Path, "/1"):
			saysManifest(w)
		default:
			say(w, http.StatusNotFound, "application/json", notThere)
		}
	})
	front := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			say(w, http.StatusOK, "application/json", "{}")
			return
		}
		http.Redirect(w, r, behind.URL+strings.Replace(r.URL.Path, "/v2/", "/v2/images/", 1), http.StatusTemporaryRedirect)
	})
	r := remote(t, front.URL, as("me", password))
	if _, err := r.Resolve(t.Context(), "app", "1"); err != nil {
		t.Errorf("a manifest: %v", err)
	}
	if list, err := r.Referrers(t.Context(), "app", subject); err != nil || len(list.Manifests) != 1 {
		t.Errorf("referrers: %v, %v", list, err)
	}
	// What the other registry says in a registry's form is the answer.
	if _, err := r.Manifest(t.Context(), "app", "2"); !errors.Is(err, upstream.ErrNotFound) {
		t.Errorf("a tag that is not there: %v", err)
	}
	for _, line := range front.transcript() {
		if strings.HasSuffix(line, "Bearer") || strings.HasSuffix(line, "Basic") {
			t.Errorf("the registry never asked for credentials, and got some: %s", line)
		}
	}
}

// Nothing that somebody else says changes how the registry is asked.
func TestAChallengeOfStorageSendsNoCredentialsAnywhere(t *testing.T) {
	store := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("the storage is shown credentials")
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="give me"`)
		say(w, http.StatusUnauthorized, "", "")
	})
	registry := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v2/":
			say(w, http.StatusOK, "application/json", "{}")
		case strings.Contains(r.URL.Path, "/blobs/"):
			http.Redirect(w, r, store.URL, http.StatusTemporaryRedirect)
		default:
			saysManifest(w)
		}
	})
	r := remote(t, registry.URL, as("me", password))
	if _, err := r.Blob(t.Context(), "app", digest.FromString("layer"), 0, -1); !errors.Is(err, upstream.ErrThirdParty) {
		t.Error(err)
	}
	if _, err := r.Resolve(t.Context(), "app", "1"); err != nil {
		t.Error(err)
	}
	registry.wantAsked(t, "GET /v2/", "GET /v2/app/blobs/"+digest.FromString("layer").String(), "HEAD /v2/app/manifests/1")
}

// With nothing to show, a challenge is no reason not to ask the next time.
func TestAChallengeThatCannotBeMetIsNotRemembered(t *testing.T) {
	for _, atStorage := range []bool{true, false} {
		challenged := false
		challenges := func(w http.ResponseWriter) bool {
			first := !challenged
			if challenged = true; first {
				w.Header().Set("WWW-Authenticate", `Basic realm="give me"`)
				say(w, http.StatusUnauthorized, "application/json", `{"errors":[{"code":"UNAUTHORIZED"}]}`)
			}
			return first
		}
		store := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			if !atStorage || !challenges(w) {
				say(w, http.StatusOK, "", "layer")
			}
		})
		registry := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if atStorage || !challenges(w) {
				http.Redirect(w, r, store.URL, http.StatusTemporaryRedirect)
			}
		})
		r := remote(t, registry.URL, nil)
		d := digest.FromString("layer")
		if _, err := r.Blob(t.Context(), "app", d, 0, -1); err == nil {
			t.Error("the challenge was met")
		}
		c, err := r.Blob(t.Context(), "app", d, 0, -1)
		if got := read(t, c, err); got != "layer" {
			t.Errorf("got %q", got)
		}
	}
}
