package upstream_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/upstream"
)

// W45: an error is the registry's word where it comes as one.
func TestInWhoseWordsAnErrorComes(t *testing.T) {
	const (
		page  = "<html><body>not here</body></html>"
		words = "default backend - 404"
	)
	for _, c := range []struct {
		status          int
		mediaType, body string
		want            error
	}{
		{404, "application/json", notThere, upstream.ErrNotFound},
		{404, "text/plain", notThere, upstream.ErrNotFound}, // F34
		{404, "application/json", `{"errors":[{"code":"NAME_UNKNOWN"}]}`, upstream.ErrNameUnknown},
		{410, "application/json", notThere, upstream.ErrNotFound},
		{404, "text/html", page, upstream.ErrInvalidResponse},
		{404, "", page, upstream.ErrInvalidResponse},
		{410, "text/html", page, upstream.ErrInvalidResponse},
		{404, "text/plain", words, upstream.ErrInvalidResponse},
		{404, "", "", upstream.ErrInvalidResponse},
		{403, "application/json", `{"errors":[{"code":"DENIED"}]}`, upstream.ErrDenied},
		{403, "application/json", `{"message":"no"}`, upstream.ErrDenied},
		{403, "", "", upstream.ErrDenied},
		{403, "text/html", page, upstream.ErrInvalidResponse},
		{403, "text/plain", "blocked by policy", upstream.ErrInvalidResponse},
		{401, "text/html", page, upstream.ErrInvalidResponse},
		{401, "application/json", `{"errors":[{"code":"UNAUTHORIZED"}]}`, upstream.ErrDenied},
		{402, "application/json", `{"errors":[{"code":"DENIED"}]}`, upstream.ErrDenied},
		{451, "application/json", `{"errors":[{"code":"DENIED","message":"taken down"}]}`, upstream.ErrDenied},
		{407, "text/html", page, upstream.ErrInvalidResponse},
		{403, "", page + strings.Repeat(" ", 20<<10), upstream.ErrInvalidResponse},
		{403, "application/octet-stream", page + strings.Repeat(" ", 20<<10), upstream.ErrInvalidResponse},
		{400, "application/json", `{"errors":[{"code":"NAME_INVALID"}]}`, upstream.ErrInvalidResponse},
		{406, "application/json", `{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`, upstream.ErrInvalidResponse},
		{500, "application/json", notThere, upstream.ErrUnavailable},
		{502, "text/html", page, upstream.ErrUnavailable},
	} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) { say(w, c.status, c.mediaType, c.body) })
		r := remote(t, s.URL, nil)
		for name, ask := range map[string]func() error{
			"Manifest": func() error { _, err := r.Manifest(t.Context(), "app", "1"); return err },
			"Resolve":  func() error { _, err := r.Resolve(t.Context(), "app", "1"); return err },
		} {
			if err := ask(); !errors.Is(err, c.want) || !errors.Is(c.want, upstream.ErrInvalidResponse) && errors.Is(err, upstream.ErrInvalidResponse) {
				t.Errorf("%s: %d %q %q: %v, want %v", name, c.status, c.mediaType, c.body, err, c.want)
			}
		}
	}
}

// What a bare 404 means is decided by whether /v2/ and the repository answer
// as a registry's do.
func TestABare404IsVouchedForByTheRepository(t *testing.T) {
	for _, body := range []string{"404 page not found", "", "{}"} {
		for name, c := range map[string]struct {
			ping, tags func(w http.ResponseWriter)
			want       error
		}{
			"both answer": {
				func(w http.ResponseWriter) { say(w, 200, "application/json", "{}") },
				func(w http.ResponseWriter) { say(w, 200, "application/json", `{"name":"app","tags":["2"]}`) }, upstream.ErrNotFound,
			},
			"the repository is not there": {
				func(w http.ResponseWriter) { say(w, 200, "application/json", "") },
				func(w http.ResponseWriter) {
					say(w, 404, "application/json", `{"errors":[{"code":"NAME_UNKNOWN"}]}`)
				}, upstream.ErrNotFound,
			},
			"the repository is a 404 like any other": {
				func(w http.ResponseWriter) { say(w, 200, "application/json", "{}") },
				func(w http.ResponseWriter) { say(w, 404, "text/plain", body) }, upstream.ErrInvalidResponse,
			},
			"everything is a 404": {
				func(w http.ResponseWriter) { say(w, 404, "text/plain", body) },
				func(w http.ResponseWriter) { say(w, 404, "text/plain", body) }, upstream.ErrInvalidResponse,
			},
			"everything is a page": {
				func(w http.ResponseWriter) { say(w, 200, "text/html", "<html>") },
				func(w http.ResponseWriter) { say(w, 200, "text/html", "<html>") }, upstream.ErrInvalidResponse,
			},
		} {
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Path == "/v2/":
					c.ping(w)
				case strings.HasSuffix(r.URL.Path, "/tags/list"):
					c.tags(w)
				default:
					say(w, http.StatusNotFound, "text/plain", body)
				}
			})
			r := remote(t, s.URL, nil)
			if _, err := r.Manifest(t.Context(), "app", "1"); !errors.Is(err, c.want) || errors.Is(err, upstream.ErrNotFound) != errors.Is(c.want, upstream.ErrNotFound) {
				t.Errorf("%q, %s: %v, want %v", body, name, err, c.want)
			}
		}
	}
}

// What has no meaning of its own is passed on as it is, where a registry says it.
func TestAStatusThatOnlyTheRegistryDefinesIsReported(t *testing.T) {
	for body, want := range map[string]int{`{"errors":[{"code":"UNSUPPORTED"}]}`: 415, "<html>": 0, "": 0} {
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) { say(w, 415, "", body) })
		_, err := remote(t, s.URL, nil).Manifest(t.Context(), "app", "1")
		var refused *upstream.RefusedError
		if got := errors.As(err, &refused); !errors.Is(err, upstream.ErrInvalidResponse) || got != (want != 0) || got && (refused.Status != want || refused.Code != "UNSUPPORTED") {
			t.Errorf("%q: %v", body, err)
		}
	}
}

func TestASuccessThatIsNoneIsNotForwarded(t *testing.T) {
	for _, status := range []int{202, 204, 407} {
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			say(w, status, "application/json", `{"errors":[{"code":"DENIED"}]}`)
		})
		_, err := remote(t, s.URL, nil).Manifest(t.Context(), "app", "1")
		var refused *upstream.RefusedError
		if errors.As(err, &refused) || !errors.Is(err, upstream.ErrInvalidResponse) {
			t.Errorf("%d: %v", status, err)
		}
	}
}

func TestTheUpstreamsMessageIsReported(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		say(w, http.StatusUnavailableForLegalReasons, "application/json", `{"errors":[{"code":"DENIED","message":"taken down\nby order"}]}`)
	})
	_, err := remote(t, s.URL, nil).Manifest(t.Context(), "app", "1")
	if err == nil || !strings.Contains(err.Error(), "451: taken down by order") {
		t.Errorf("got %v", err)
	}
}

// An upstream that was seen to have the Referrers API has it: nothing else that
// it says makes "nothing refers" of it. That it has none it says itself.
func TestWhatSpeaksAgainstTheReferrersAPI(t *testing.T) {
	for name, c := range map[string]struct {
		answer        func(w http.ResponseWriter)
		before, after error // before and after an index was seen
	}{
		"404 page not found":       {func(w http.ResponseWriter) { say(w, 404, "text/plain", "404 page not found") }, upstream.ErrNoAPI, upstream.ErrInvalidResponse},
		"404 of the specification": {func(w http.ResponseWriter) { say(w, 404, "application/json", notThere) }, upstream.ErrUnsupported, upstream.ErrInvalidResponse},
		"405":                      {func(w http.ResponseWriter) { say(w, 405, "", "") }, upstream.ErrNoAPI, upstream.ErrInvalidResponse},
		"a page with 404":          {func(w http.ResponseWriter) { say(w, 404, "text/html", "<html>") }, upstream.ErrInvalidResponse, upstream.ErrInvalidResponse},
		"a page with 200":          {func(w http.ResponseWriter) { say(w, 200, "text/html", "<html>") }, upstream.ErrInvalidResponse, upstream.ErrInvalidResponse},
		"no repository": {func(w http.ResponseWriter) {
			say(w, 404, "application/json", `{"errors":[{"code":"NAME_UNKNOWN"}]}`)
		}, upstream.ErrUnsupported, upstream.ErrNameUnknown},
		"400 of the specification": {func(w http.ResponseWriter) { say(w, 400, "application/json", notThere) }, upstream.ErrUnsupported, nil}, // W43
		"a redirect to a web site": {func(w http.ResponseWriter) {
			w.Header().Set("Location", "https://web.test/login")
			w.WriteHeader(http.StatusSeeOther)
		}, upstream.ErrNoAPI, upstream.ErrInvalidResponse},
		"null":      {func(w http.ResponseWriter) { say(w, 200, indexType, "null") }, upstream.ErrInvalidResponse, upstream.ErrInvalidResponse},
		"an object": {func(w http.ResponseWriter) { say(w, 200, indexType, "{}") }, upstream.ErrInvalidResponse, upstream.ErrInvalidResponse},
		"errors":    {func(w http.ResponseWriter) { say(w, 200, indexType, notThere) }, upstream.ErrInvalidResponse, upstream.ErrInvalidResponse},
		"errors beside a list": {func(w http.ResponseWriter) {
			say(w, 200, indexType, `{"schemaVersion":2,"manifests":[],"errors":[{"code":"UNKNOWN"}]}`)
		}, upstream.ErrInvalidResponse, upstream.ErrInvalidResponse},
		"an index without list": {func(w http.ResponseWriter) { say(w, 200, indexType, `{"schemaVersion":2}`) }, upstream.ErrInvalidResponse, upstream.ErrInvalidResponse},
	} {
		known := false
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/other/") {
				say(w, 200, indexType, `{"schemaVersion":2,"mediaType":"`+indexType+`","manifests":[]}`)
				return
			}
			c.answer(w)
		})
		r := remote(t, s.URL, func(o *upstream.RemoteOptions) { o.SawReferrers = func() { known = true } })
		subject := noSubject
		if _, err := r.Referrers(t.Context(), "app", subject); !errors.Is(err, c.before) {
			t.Errorf("%s: %v, want %v", name, err, c.before)
		}
		if _, err := r.Referrers(t.Context(), "other", subject); err != nil || !known {
			t.Errorf("%s: an index: %v, remembered: %v", name, err, known)
		}
		if _, err := r.Referrers(t.Context(), "app", subject); fmt.Sprint(err) != fmt.Sprint(c.after) && !errors.Is(err, c.after) {
			t.Errorf("%s, once an index was seen: %v, want %v", name, err, c.after)
		}
		restarted := remote(t, s.URL, func(o *upstream.RemoteOptions) { o.HasReferrers = known })
		if _, err := restarted.Referrers(t.Context(), "app", subject); fmt.Sprint(err) != fmt.Sprint(c.after) && !errors.Is(err, c.after) {
			t.Errorf("%s, by another process: %v, want %v", name, err, c.after)
		}
	}
}

// A later page of a list that fails leaves the list unknown, whatever it says.
func TestALaterPageNeverSaysThatThereIsNoAPI(t *testing.T) {
	for _, status := range []int{400, 404, 405} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.RawQuery != "" {
				say(w, status, "application/json", notThere)
				return
			}
			w.Header().Set("Link", `<?page=2>; rel="next"`)
			say(w, 200, indexType, `{"schemaVersion":2,"mediaType":"`+indexType+`","manifests":[]}`)
		})
		if list, err := remote(t, s.URL, nil).Referrers(t.Context(), "app", noSubject); !errors.Is(err, upstream.ErrInvalidResponse) {
			t.Errorf("%d: %v, %v", status, list, err)
		}
	}
}
