package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// waywardness is how a registry answers that is asked for referrers, in front of
// one that does so as it should.
type waywardness func(next http.Handler, known *attachments) http.Handler

// attachments are the digests of what clients have attached.
type attachments struct{ digests map[string]bool }

// wayward stands before a real registry and fails for a while.
type wayward struct {
	*httptest.Server
	next, mended http.Handler
	known        *attachments
	now          atomic.Pointer[http.Handler]
}

// newWayward starts one that passes everything on until it is told otherwise.
// mended is what the registry is by then, where that is more than before.
func newWayward(t *testing.T, registry http.Handler, known *attachments) *wayward {
	t.Helper()
	w := &wayward{next: registry, mended: registry, known: known}
	w.be(nil)
	w.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { (*w.now.Load()).ServeHTTP(rw, r) }))
	t.Cleanup(w.Close)
	return w
}

func (w *wayward) host() string { return strings.TrimPrefix(w.URL, "http://") }

// be makes it answer in another way from now on; nil is as it should.
func (w *wayward) be(how waywardness) {
	answering := w.mended
	if how != nil {
		answering = how(w.next, w.known)
	}
	w.now.Store(&answering)
}

// Questions about referrers.
func asksAPI(r *http.Request) bool     { return strings.Contains(r.URL.Path, "/referrers/") }
func asksTag(r *http.Request) bool     { return strings.Contains(r.URL.Path, "/manifests/sha256-") }
func asksTagHead(r *http.Request) bool { return asksTag(r) && r.Method == http.MethodHead }
func asksHead(r *http.Request) bool {
	return strings.Contains(r.URL.Path, "/manifests/") && r.Method == http.MethodHead
}
func asksAnything(r *http.Request) bool { return r.URL.Path != "/v2/" }

// where lets requests be answered in another way.
func where(meant func(*http.Request) bool, answer http.HandlerFunc) waywardness {
	return func(next http.Handler, _ *attachments) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if meant(r) {
				answer(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// each is several ways at once; the first is the outermost.
func each(all ...waywardness) waywardness {
	return func(next http.Handler, known *attachments) http.Handler {
		for i := len(all) - 1; i >= 0; i-- {
			next = all[i](next, known)
		}
		return next
	}
}

// onAttached lets requests for what is attached be answered in another way.
func onAttached(answer http.HandlerFunc) waywardness {
	return func(next http.Handler, known *attachments) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, ref, ok := strings.Cut(r.URL.Path, "/manifests/")
			if ok && known.digests[ref] {
				answer(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

func sends(status int, mediaType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", mediaType)
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.WriteHeader(status)
		if r.Method != http.MethodHead {
			_, _ = w.Write([]byte(body))
		}
	}
}

func fails(status int, code string) http.HandlerFunc {
	return sends(status, "application/json", fmt.Sprintf(`{"errors":[{"code":%q,"message":"the registry says so"}]}`, code))
}

func breaks(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

var (
	sendsPage  = sends(http.StatusOK, "text/html; charset=utf-8", "<!DOCTYPE html><title>Sign in</title>")
	sendsNone  = sends(http.StatusOK, ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
	sendsNoAPI = sends(http.StatusNotFound, "text/plain; charset=utf-8", "404 page not found\n")
	isUnknown  = fails(http.StatusNotFound, "MANIFEST_UNKNOWN")
	isBroken   = fails(http.StatusServiceUnavailable, "UNAVAILABLE")
)

// notYet is a registry to which nothing has been attached.
func notYet(api bool) waywardness {
	none := where(asksAPI, sendsNoAPI)
	if api {
		none = where(asksAPI, sendsNone)
	}
	return each(none, where(asksTag, isUnknown), onAttached(isUnknown))
}

// pagedBy has the API answer with an empty first page, which names a second, and
// the second page as it is told.
func pagedBy(link string, second http.HandlerFunc) waywardness {
	return func(next http.Handler, _ *attachments) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case !asksAPI(r):
				next.ServeHTTP(w, r)
			case r.URL.Query().Get("page") == "":
				w.Header().Set("Link", strings.ReplaceAll(link, "NEXT", r.URL.Path+"?page=2"))
				sendsNone(w, r)
			case second != nil:
				second(w, r)
			default:
				next.ServeHTTP(w, r)
			}
		})
	}
}

// pagedSlowly has the API answer with so many pages, each after a while, of which
// the last has the list.
func pagedSlowly(pages int, each time.Duration) waywardness {
	return func(next http.Handler, _ *attachments) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !asksAPI(r) {
				next.ServeHTTP(w, r)
				return
			}
			time.Sleep(each)
			page, _ := strconv.Atoi(r.URL.Query().Get("page")) // the first has no number
			if page+1 == pages {
				next.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Link", fmt.Sprintf(`<%s?page=%d>; rel="next"`, r.URL.Path, page+1))
			sendsNone(w, r)
		})
	}
}

// rewritten changes a list on its way.
func rewritten(meant func(*http.Request) bool, change func(*ocispec.Index)) waywardness {
	return func(next http.Handler, _ *attachments) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !meant(r) {
				next.ServeHTTP(w, r)
				return
			}
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, r)
			var index ocispec.Index
			if rec.Code == http.StatusOK && json.Unmarshal(rec.Body.Bytes(), &index) == nil {
				change(&index)
				rec.Body = bytes.NewBuffer(inJSON(index))
			}
			for name, values := range rec.Header() {
				w.Header()[name] = values
			}
			w.Header().Set("Content-Length", strconv.Itoa(rec.Body.Len()))
			w.WriteHeader(rec.Code)
			_, _ = w.Write(rec.Body.Bytes())
		})
	}
}

// byAnotherAlgorithm lists what no client can compute the digest of.
func byAnotherAlgorithm(index *ocispec.Index) {
	for i, d := range index.Manifests {
		index.Manifests[i].Digest = digest.Digest("blake3:" + d.Digest.Encoded())
	}
}

// poorly makes a list's entries poor, as older clients and registries write
// them.
func poorly(index *ocispec.Index) {
	for i := range index.Manifests {
		index.Manifests[i].ArtifactType, index.Manifests[i].Annotations = ocispec.MediaTypeEmptyJSON, nil
	}
}
