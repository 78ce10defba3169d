package proxy_test

import (
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"time"

	pulling "github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// A row of the table of real registries: how one answers, what stands behind
// or in front of it, and what clients see.
type realRow struct {
	name  string
	fault func(*upstreamtest.Registry)
	auth  upstreamtest.Auth
	// What clients see of a tag and of a blob that nobody has pulled, and of a
	// tag that is kept and has to be checked.
	tag, blob, kept string
}

func realRows(t *testing.T) []realRow {
	rule := func(match string, faults ...upstreamtest.Fault) func(*upstreamtest.Registry) {
		return func(r *upstreamtest.Registry) { r.Always(match, upstreamtest.Combine(faults...)) }
	}
	content := func(faults ...upstreamtest.Fault) func(*upstreamtest.Registry) {
		return func(r *upstreamtest.Registry) {
			for _, match := range []string{"GET manifests", "HEAD manifests", "GET blobs", "HEAD blobs"} {
				r.Always(match, upstreamtest.Combine(faults...))
			}
		}
	}
	stored := func(match string, fault upstreamtest.Fault, once bool) func(*upstreamtest.Registry) {
		return func(r *upstreamtest.Registry) {
			content(upstreamtest.ToStorage(upstreamtest.Storage{}))(r)
			if once {
				fault = upstreamtest.FirstTime(fault)
			}
			r.Always(match, fault)
		}
	}
	another := upstreamtest.New(t, upstreamtest.WithAuth(upstreamtest.Auth{Scheme: "token"}))
	another.AddImage("app", "1", upstreamtest.Bytes(1, 64<<10))
	const (
		unavailable = "502 UNAVAILABLE"
		denied      = "403 DENIED"
	)
	said := func(status int, mediaType, body string) func(*upstreamtest.Registry) {
		return content(upstreamtest.Said(status, mediaType, body))
	}
	words := `{"errors":[{"code":"UNSUPPORTED","message":"the registry says so"}]}`
	rows := []realRow{
		{name: "the storage signs URLs for GET only", fault: content(upstreamtest.ToStorage(upstreamtest.Storage{}))},
		{name: "the storage sends everything as binary/octet-stream", fault: content(upstreamtest.ToStorage(upstreamtest.Storage{Any: true, Typed: "binary/octet-stream"}))},
		{name: "the storage sends everything without a Content-Type", fault: content(upstreamtest.ToStorage(upstreamtest.Storage{Any: true, Typed: "-"}))},
		{name: "the first storage URL has expired", fault: stored("GET storage", upstreamtest.StorageError(http.StatusForbidden, "AccessDenied"), true)},
		{name: "the storage says 404", fault: stored("GET storage", upstreamtest.StorageError(http.StatusNotFound, "NoSuchKey"), false), tag: unavailable, blob: unavailable, kept: staleAnswer},
		{name: "the storage says 403", fault: stored("GET storage", upstreamtest.StorageError(http.StatusForbidden, "AccessDenied"), false), tag: unavailable, blob: unavailable, kept: staleAnswer},
		{name: "the storage says 429", fault: stored("GET storage", upstreamtest.StorageError(http.StatusTooManyRequests, "SlowDown"), false), tag: unavailable, blob: unavailable, kept: staleAnswer},
		{name: "the storage says 503", fault: stored("GET storage", upstreamtest.StorageError(http.StatusServiceUnavailable, "SlowDown"), false), tag: unavailable, blob: unavailable, kept: staleAnswer},
		{name: "content is at another registry, which requires its own token", fault: content(upstreamtest.Moved(another, http.StatusTemporaryRedirect))},
		{name: "content is sent as text/html", fault: content(upstreamtest.Typed("text/html"))},
		{name: "content is sent without a Content-Type", fault: content(upstreamtest.Typed(""))},
		{name: "200 with errors", fault: said(200, "application/json", words), tag: unavailable, blob: unavailable, kept: staleAnswer},
		{name: "200 with {}", fault: said(200, "application/json", "{}"), tag: unavailable, blob: unavailable, kept: staleAnswer},
		{name: "200 with nothing", fault: said(200, "application/json", ""), tag: unavailable, blob: unavailable, kept: staleAnswer},
		{name: "manifests are compressed, and there is no digest header", fault: rule("GET manifests", upstreamtest.WithoutHeader("Docker-Content-Digest"), upstreamtest.Encoded("gzip"))},
		{name: "404 with only the text 404 page not found", fault: said(404, "text/plain", "404 page not found"), tag: "404 MANIFEST_UNKNOWN", blob: "404 BLOB_UNKNOWN", kept: "404 MANIFEST_UNKNOWN"},
		{name: "the same for everything, including /v2/", fault: rule("", upstreamtest.Said(404, "text/plain", "404 page not found")), tag: unavailable, blob: unavailable, kept: staleAnswer},
		{name: "404 with an ingress' default backend", fault: rule("", upstreamtest.Said(404, "text/plain", "default backend - 404")), tag: unavailable, blob: unavailable, kept: staleAnswer},
		{name: "410 with a page", fault: rule("", upstreamtest.Page(410)), tag: unavailable, blob: unavailable, kept: staleAnswer},
		{name: "401 with a page", fault: rule("", upstreamtest.Page(401)), tag: unavailable, blob: unavailable, kept: staleAnswer},
		{name: "407 of a proxy", fault: rule("", upstreamtest.Page(407)), tag: unavailable, blob: unavailable, kept: staleAnswer},
		{name: "429 until a Unix time that is 7 seconds away", fault: content(func(r *upstreamtest.Registry, w http.ResponseWriter, req *http.Request, q upstreamtest.Request) {
			upstreamtest.Limited("Retry-After", fmt.Sprint(time.Now().Unix()+7))(r, w, req, q)
		}), tag: "429 TOOMANYREQUESTS, Retry-After", blob: "429 TOOMANYREQUESTS, Retry-After", kept: staleAnswer},
		{name: "429 to GETs of manifests only", fault: rule("GET manifests", upstreamtest.Limited("Retry-After", "7")), tag: "429 TOOMANYREQUESTS, Retry-After"},
		{name: "402", fault: said(402, "application/json", words), tag: denied, blob: denied, kept: denied},
		{name: "406", fault: said(406, "application/json", words), tag: "406 UNSUPPORTED", blob: "406 UNSUPPORTED", kept: staleAnswer},
		{name: "409", fault: said(409, "application/json", words), tag: "409 UNSUPPORTED", blob: "409 UNSUPPORTED", kept: staleAnswer},
		{name: "415", fault: said(415, "application/json", words), tag: "415 UNSUPPORTED", blob: "415 UNSUPPORTED", kept: staleAnswer},
		{name: "400", fault: said(400, "application/json", words), tag: "400 UNSUPPORTED", blob: "400 UNSUPPORTED", kept: staleAnswer},
		{name: "400 with a page", fault: content(upstreamtest.Page(400)), tag: unavailable, blob: unavailable, kept: staleAnswer},
		{name: "the token server moves within its host", auth: upstreamtest.Auth{Scheme: "token"}, fault: rule("GET token", upstreamtest.Where(func(req *http.Request, _ upstreamtest.Request) bool {
			return req.URL.Query().Get("moved") == ""
		}, func(_ *upstreamtest.Registry, w http.ResponseWriter, req *http.Request, _ upstreamtest.Request) {
			w.Header().Set("Location", req.URL.Path+"?moved=yes&"+req.URL.RawQuery)
			w.WriteHeader(http.StatusPermanentRedirect)
		}))},
		{name: "the token server says 403 with a page", auth: upstreamtest.Auth{Scheme: "token"}, fault: rule("GET token", upstreamtest.Page(403)), tag: unavailable, blob: unavailable, kept: staleAnswer},
		{name: "only ranges with an end are supported", fault: rule("GET blobs", upstreamtest.RangesAsked(func(byteRange string) bool { return byteRange[len(byteRange)-1] != '-' }))},
	}
	for _, status := range []int{400, 401, 403, 404, 405, 501} {
		rows = append(rows, realRow{name: fmt.Sprintf("%d to every HEAD", status), fault: rule("HEAD", upstreamtest.Empty(status))})
	}
	return rows
}

func realFaults(t *testing.T) string {
	var lines faultLines
	t.Run("rows", func(t *testing.T) {
		for i, row := range realRows(t) {
			t.Run(row.name, func(t *testing.T) {
				t.Parallel()
				// What is not said is sound.
				or := func(said, otherwise string) string {
					if said == "" {
						return otherwise
					}
					return said
				}
				tag := runReal(t, row, "tag")
				if want := or(row.tag, sound); tag != want {
					t.Errorf("the client of a tag saw %q, want %q", tag, want)
				}
				blob := runReal(t, row, "blob")
				if want := or(row.blob, sound); blob != want {
					t.Errorf("the client of a blob saw %q, want %q", blob, want)
				}
				kept := runReal(t, row, "kept")
				if want := or(row.kept, "200"); kept != want {
					t.Errorf("the client of a kept tag saw %q, want %q", kept, want)
				}
				lines.add(i, row.name, tag, blob, kept)
			})
		}
	})
	return "## Real registries, and what surrounds them\n\nThe tag and the blob have never been pulled, or the tag is cached and has to be checked. " +
		"A 404 without the spec's error format counts if `/v2/` answers as a registry does and the repository answers with its tag list; otherwise it is inconclusive.\n\n" +
		lines.table("the upstream", "for a tag the client sees", "for a blob", "for a cached tag")
}

func runReal(t *testing.T, row realRow, target string) string {
	t.Helper()
	const size = 64 << 10
	fake := upstreamtest.New(t, upstreamtest.WithAuth(row.auth))
	manifest, m := fake.AddImage("app", "1", upstreamtest.Bytes(1, size))
	path, d, whole := "/v2/app/manifests/1", manifest.Digest, manifest.Size
	s := setup{dir: t.TempDir(), options: func(o *pulling.Options) { o.Rules.TagTTL = time.Nanosecond }}
	if target != "tag" { // the manifest has been pulled
		first := newMirror(t, fake, s)
		if a := first.get(path); a.status != http.StatusOK {
			t.Fatalf("the manifest: %d %s", a.status, a.body)
		}
		first.stop()
	}
	if target == "blob" {
		d, whole = m.Layers[0].Digest, size
		path = "/v2/app/blobs/" + d.String()
	}
	row.fault(fake)
	a := newMirror(t, fake, s).get(path)
	switch {
	case target == "kept" && a.status == http.StatusOK && a.header.Get("Warning") == `110 - "Response is Stale"`:
		return staleAnswer
	case target == "kept" && a.status == http.StatusOK && a.header.Get("Warning") == "":
		return "200"
	case a.status == http.StatusOK && a.broken == nil && int64(len(a.body)) == whole && d.Algorithm().FromBytes(a.body) == d:
		return sound
	case a.status == http.StatusOK:
		return fmt.Sprintf("200 with %d bytes, %v", len(a.body), a.broken)
	}
	sees := fmt.Sprintf("%d %s", a.status, a.code)
	if after, err := strconv.Atoi(a.header.Get("Retry-After")); err == nil && after >= 5 && after <= 7 {
		sees += ", Retry-After" // a second may pass between the answers
	}
	return sees
}
