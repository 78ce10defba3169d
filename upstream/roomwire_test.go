package upstream

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/opencontainers/go-digest"
)

// Whatever is read into memory counts, and does not come in while there is no
// room. That says nothing about the upstream: it is asked once, and the next
// question goes to it as well.
func TestWhatIsReadIntoMemoryNeedsRoom(t *testing.T) {
	const size = 200 << 10
	spaces := strings.Repeat(" ", size)
	plain := func(mediaType, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, mediaType, body) }
	}
	gzipped := func(mediaType, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			answer(w, http.StatusOK, mediaType, string(packed(t, "gzip", []byte(body))))
		}
	}
	index := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]` + spaces + `}`
	tags := `{"name":"app","tags":["1"]` + spaces + `}`
	manifest := `{"schemaVersion":2` + spaces + `}`
	askTags := func(t *testing.T, r *Remote) error {
		_, err := r.Tags(t.Context(), "app", nil)
		return err
	}
	askReferrers := func(t *testing.T, r *Remote) error {
		_, err := r.Referrers(t.Context(), "app", subjectOf(1))
		return err
	}
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		ask    func(*testing.T, *Remote) error
	}{
		"a list of tags":                     {plain("application/json", tags), askTags},
		"a list of tags that is a bomb":      {gzipped("application/json", tags), askTags},
		"a list of referrers":                {plain("application/vnd.oci.image.index.v1+json", index), askReferrers},
		"a list of referrers that is a bomb": {gzipped("application/vnd.oci.image.index.v1+json", index), askReferrers},
		"a manifest, where there is no HEAD": {func(w http.ResponseWriter, req *http.Request) {
			if req.Method == http.MethodHead {
				w.WriteHeader(http.StatusMethodNotAllowed)
				return
			}
			answer(w, http.StatusOK, "application/vnd.oci.image.manifest.v1+json", manifest)
		}, func(t *testing.T, r *Remote) error {
			_, err := r.Resolve(t.Context(), "app", "1")
			return err
		}},
		"a manifest that is a bomb": {gzipped("application/vnd.oci.image.manifest.v1+json", manifest), func(t *testing.T, r *Remote) error {
			c, err := r.Manifest(t.Context(), "app", "1")
			if err != nil {
				return err
			}
			defer c.Body.Close()
			if content, err := io.ReadAll(c.Body); err != nil || digest.FromBytes(content) != digest.FromString(manifest) {
				t.Errorf("%d bytes, %v", len(content), err)
			}
			return nil
		}},
		"a token": {func(w http.ResponseWriter, req *http.Request) {
			switch {
			case req.URL.Path == "/token":
				answer(w, http.StatusOK, "application/json", `{"token":"secret"`+spaces+`}`)
			case req.Header.Get("Authorization") == "":
				w.Header().Set("WWW-Authenticate", `Bearer realm="http://hub.test/token",service="hub.test"`)
				answer(w, http.StatusUnauthorized, "application/json", `{"errors":[{"code":"UNAUTHORIZED"}]}`)
			default:
				answer(w, http.StatusOK, "application/json", `{"name":"app","tags":["1"]}`)
			}
		}, askTags},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, w := reach(t, test.answer)
				r.opts.Room = NewRoom(0)
				var dones []func()
				for r.opts.Room.small.taken() < r.opts.Room.small.share {
					_, done, err := r.opts.Room.Read(t.Context(), r.opts.Name, bytes.NewReader(make([]byte, size)), size, size)
					if err != nil {
						t.Fatal(err)
					}
					dones = append(dones, done)
				}
				taken := r.opts.Room.InHand()
				breaker := Breaker(Retry(r))
				if err := test.ask(t, r); !errors.Is(err, ErrCrowded) {
					t.Errorf("without room: %v", err)
				}
				asked := len(w.asked)
				if _, err := breaker.Tags(t.Context(), "app", nil); name == "a list of tags" && (!errors.Is(err, ErrCrowded) || len(w.asked) != asked+1) {
					t.Errorf("without room, asked %d times: %v", len(w.asked)-asked, err)
				}
				if now := r.opts.Room.InHand(); now != taken {
					t.Errorf("%d bytes are taken, want %d", now, taken)
				}
				for _, done := range dones {
					done()
				}
				if err := test.ask(t, r); err != nil {
					t.Errorf("with room: %v", err)
				}
				if _, err := breaker.Tags(t.Context(), "app", nil); name == "a list of tags" && err != nil {
					t.Errorf("the next question: %v", err)
				}
				if now := r.opts.Room.InHand(); now != 0 {
					t.Errorf("%d bytes are taken in the end", now)
				}
			})
		})
	}
}
