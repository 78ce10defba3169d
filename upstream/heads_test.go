package upstream_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/upstream"
)

// W44: a HEAD that fails is not believed where a GET may succeed.
func TestAHEADThatFailsIsAskedAgainWithGET(t *testing.T) {
	blob := strings.Repeat("layer", 100)
	for _, status := range []int{400, 401, 403, 404, 405, 501} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.Method == http.MethodHead:
					w.WriteHeader(status)
				case strings.Contains(r.URL.Path, "/blobs/"):
					http.ServeContent(w, r, "", noTime, strings.NewReader(blob))
				default:
					saysManifest(w)
				}
			})
			r := remote(t, s.URL, nil)
			for range 2 {
				got, err := r.Resolve(t.Context(), "app", "1")
				if err != nil || got.Digest != digest.FromString(manifestBody) || got.Size != int64(len(manifestBody)) {
					t.Errorf("the manifest is %v, %v", got, err)
				}
				if got, err := r.ResolveBlob(t.Context(), "app", digest.FromString(blob)); err != nil || got.Size != int64(len(blob)) {
					t.Errorf("the blob is %v, %v", got, err)
				}
			}
			// That its HEAD is of no use is asked once for each kind.
			b := "/v2/app/blobs/" + digest.FromString(blob).String()
			s.wantAsked(t, "HEAD /v2/app/manifests/1", "GET /v2/app/manifests/1", "HEAD "+b, "GET "+b, "GET /v2/app/manifests/1", "GET "+b)
		})
	}
}

// W34: a HEAD would have been a page, by its type; a GET shows that it is not.
func TestAHEADThatWouldBeAPageIsNotBelieved(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/app/manifests/login" {
			say(w, http.StatusOK, "text/html", "<html>sign in</html>")
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(manifestBody)))
		say(w, http.StatusOK, "text/html", manifestBody) // W46: as some storage sends everything
	})
	r := remote(t, s.URL, nil)
	if got, err := r.Resolve(t.Context(), "app", "login"); !errors.Is(err, upstream.ErrInvalidResponse) {
		t.Errorf("the page is %v, %v", got, err)
	}
	if got, err := r.Resolve(t.Context(), "app", "1"); err != nil || got.Digest != digest.FromString(manifestBody) {
		t.Errorf("the manifest is %v, %v", got, err)
	}
}

func TestAnAbsenceIsBelievedOfAHEADThatHasFoundSomething(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/app/manifests/1" {
			saysManifest(w)
			return
		}
		say(w, http.StatusNotFound, "application/json", notThere)
	})
	r := remote(t, s.URL, nil)
	if _, err := r.Resolve(t.Context(), "app", "2"); !errors.Is(err, upstream.ErrNotFound) {
		t.Error(err)
	}
	s.wantAsked(t, "HEAD /v2/app/manifests/2", "GET /v2/app/manifests/2")
	if _, err := r.Resolve(t.Context(), "app", "1"); err != nil {
		t.Error(err)
	}
	if _, err := r.Resolve(t.Context(), "app", "2"); !errors.Is(err, upstream.ErrNotFound) {
		t.Error(err)
	}
	s.wantAsked(t, "HEAD /v2/app/manifests/1", "HEAD /v2/app/manifests/2")
}

// W42: GETs of manifests are limited, and HEADs are not. Whether a HEAD can be
// believed is learnt from what a GET has returned.
func TestAnAbsentTagCostsNoGETWhereAManifestWasFetched(t *testing.T) {
	d := digest.FromString(manifestBody).String()
	there := func(r *http.Request) bool {
		return strings.HasSuffix(r.URL.Path, d) || strings.HasSuffix(r.URL.Path, "/1")
	}
	absent, sample := "/v2/other/manifests/2", "/v2/app/manifests/"+d
	for name, c := range map[string]struct {
		head        func(w http.ResponseWriter, r *http.Request) // of what is there
		first, then []string
	}{
		"HEAD answers": {
			func(w http.ResponseWriter, _ *http.Request) { saysManifest(w) },
			[]string{"HEAD " + absent, "HEAD " + sample},
			[]string{"HEAD " + absent},
		},
		"HEAD is always 404": {
			func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusNotFound, "application/json", "") },
			[]string{"HEAD " + absent, "HEAD " + sample, "GET " + absent},
			[]string{"HEAD " + absent, "GET " + absent},
		},
		"HEAD would be a page": {
			func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "text/html", "") },
			[]string{"HEAD " + absent, "HEAD " + sample, "GET " + absent},
			[]string{"HEAD " + absent, "GET " + absent},
		},
		"HEAD gives no answer": { // which says nothing, and is asked again
			func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusServiceUnavailable, "", "") },
			[]string{"HEAD " + absent, "HEAD " + sample, "GET " + absent},
			[]string{"HEAD " + absent, "HEAD " + sample, "GET " + absent},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				switch {
				case !there(r):
					say(w, http.StatusNotFound, "application/json", notThere)
				case r.Method == http.MethodHead:
					c.head(w, r)
				default:
					saysManifest(w)
				}
			})
			r := remote(t, s.URL, nil)
			content, err := r.Manifest(t.Context(), "app", d)
			read(t, content, err)
			s.transcript()
			for _, want := range [][]string{c.first, c.then, c.then} {
				if _, err := r.Resolve(t.Context(), "other", "2"); !errors.Is(err, upstream.ErrNotFound) {
					t.Error(err)
				}
				s.wantAsked(t, want...)
			}
		})
	}
}

// What a GET has returned is of no use where HEAD is refused: it ends with GET,
// and that HEAD is of no use is noted.
func TestWhereHEADIsRefusedItEndsWithGET(t *testing.T) {
	d := digest.FromString(manifestBody).String()
	for _, status := range []int{403, 405} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.Method == http.MethodHead:
				w.WriteHeader(status)
			case strings.HasSuffix(r.URL.Path, "/2"):
				say(w, http.StatusNotFound, "application/json", notThere)
			default:
				saysManifest(w)
			}
		})
		r := remote(t, s.URL, nil)
		c, err := r.Manifest(t.Context(), "app", d)
		read(t, c, err)
		s.transcript()
		if _, err := r.Resolve(t.Context(), "app", "2"); !errors.Is(err, upstream.ErrNotFound) {
			t.Error(err)
		}
		if _, err := r.Resolve(t.Context(), "app", "1"); err != nil {
			t.Error(err)
		}
		if _, err := r.Resolve(t.Context(), "app", "2"); !errors.Is(err, upstream.ErrNotFound) {
			t.Error(err)
		}
		s.wantAsked(t, "HEAD /v2/app/manifests/2", "GET /v2/app/manifests/2", "HEAD /v2/app/manifests/1", "GET /v2/app/manifests/1", "GET /v2/app/manifests/2")
	}
}

func TestALengthOfNothingIsNoSize(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "0")
		w.WriteHeader(http.StatusOK)
	})
	r := remote(t, s.URL, nil)
	if got, err := r.ResolveBlob(t.Context(), "app", digest.FromString("layer")); err != nil || got.Size != -1 {
		t.Errorf("a blob: %v, %v", got, err)
	}
	if got, err := r.ResolveBlob(t.Context(), "app", digest.FromString("")); err != nil || got.Size != 0 {
		t.Errorf("the empty blob: %v, %v", got, err)
	}
}

// A good token is not thrown away over a HEAD that is challenged without end.
func TestATokenOutlivesAHEADThatIsRefused(t *testing.T) {
	tokens := 0
	var s *scripted
	s = serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			tokens++
			say(w, http.StatusOK, "application/json", `{"token":"good"}`)
		case r.Method == http.MethodHead, r.Header.Get("Authorization") != "Bearer good":
			challenge(w, s.URL+"/token", "repository:app:pull")
		default:
			saysManifest(w)
		}
	})
	r := remote(t, s.URL, nil)
	for range 3 {
		if _, err := r.Resolve(t.Context(), "app", "1"); err != nil {
			t.Fatal(err)
		}
	}
	if tokens != 1 {
		t.Errorf("%d tokens were asked for, want 1", tokens)
	}
}
