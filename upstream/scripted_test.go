package upstream_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/upstream"
)

const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	indexType    = "application/vnd.oci.image.index.v1+json"
	manifestBody = `{"schemaVersion":2,"mediaType":"` + manifestType + `","config":{},"layers":[]}`
	notThere     = `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no such manifest"}]}`
)

// scripted is a server that answers by a function, and writes down what it was
// asked: method, path and query, and how the Authorization began.
type scripted struct {
	*httptest.Server
	mu    sync.Mutex
	asked []string
}

func serve(t *testing.T, answer func(w http.ResponseWriter, r *http.Request)) *scripted {
	t.Helper()
	s := &scripted{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		line := r.Method + " " + r.URL.RequestURI()
		if scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " "); scheme != "" {
			line += " " + scheme
		}
		s.asked = append(s.asked, line)
		s.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *scripted) transcript() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}

func (s *scripted) wantAsked(t *testing.T, want ...string) {
	t.Helper()
	if got := s.transcript(); !slices.Equal(got, want) {
		t.Errorf("asked\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// say answers with a status, a type and a body.
func say(w http.ResponseWriter, status int, mediaType, body string) {
	if mediaType != "" {
		w.Header().Set("Content-Type", mediaType)
	} else {
		w.Header()["Content-Type"] = nil
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

// saysManifest answers for a manifest, with what HEAD says about it.
func saysManifest(w http.ResponseWriter) {
	w.Header().Set("Docker-Content-Digest", digest.FromString(manifestBody).String())
	say(w, http.StatusOK, manifestType, manifestBody)
}

func challenge(w http.ResponseWriter, realm, scope string) {
	w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="test",scope=%q`, realm, scope))
	say(w, http.StatusUnauthorized, "application/json", `{"errors":[{"code":"UNAUTHORIZED","message":"a token is wanted"}]}`)
}

// read is all of an answer's body.
func read(t *testing.T, c upstream.Content, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Body.Close()
	b, err := io.ReadAll(c.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
