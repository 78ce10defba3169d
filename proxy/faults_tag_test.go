package proxy_test

import (
	"bytes"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	pulling "github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// A row of the table of tags: what an upstream says of a tag that is kept and
// has to be checked, and what comes of it.
type tagRow struct {
	name  string
	fault func(*upstreamtest.Registry)
	// What clients see where deleted tags are forgotten, and where they are
	// served. The tag stays on record in the second case.
	forget, serve string
	// stays says whether the tag is still on record in the first case.
	stays  bool
	silent bool
	moves  bool // the tag points at another manifest
}

const (
	staleAnswer = "200, Warning: 110"
	movedAnswer = "200, the new manifest"
	goneAnswer  = "200, Warning: 299, gone since then"
)

func tagRows() []tagRow {
	all := func(f upstreamtest.Fault) func(*upstreamtest.Registry) {
		return func(r *upstreamtest.Registry) { r.Always("", f) }
	}
	const notFound, unknown, denied = "404 MANIFEST_UNKNOWN", "404 NAME_UNKNOWN", "403 DENIED"
	return []tagRow{
		{name: "200", fault: func(*upstreamtest.Registry) {}, forget: "200", serve: "200", stays: true},
		{name: "404", fault: all(upstreamtest.Status(http.StatusNotFound, "MANIFEST_UNKNOWN")), forget: notFound, serve: goneAnswer},
		{name: "404 for the whole repository", fault: all(upstreamtest.Status(http.StatusNotFound, "NAME_UNKNOWN")), forget: unknown, serve: goneAnswer},
		{name: "410", fault: all(upstreamtest.Status(http.StatusGone, "MANIFEST_UNKNOWN")), forget: notFound, serve: goneAnswer},
		{name: "404 to HEAD only", fault: func(r *upstreamtest.Registry) {
			r.Always("HEAD", upstreamtest.Status(http.StatusNotFound, "MANIFEST_UNKNOWN"))
		}, forget: "200", serve: "200", stays: true},
		{name: "404 to HEAD, and 503 to GET", fault: func(r *upstreamtest.Registry) {
			r.Always("HEAD", upstreamtest.Status(http.StatusNotFound, "MANIFEST_UNKNOWN"))
			r.Always("GET", upstreamtest.Status(http.StatusServiceUnavailable, "UNKNOWN"))
		}, forget: staleAnswer, serve: staleAnswer, stays: true},
		{name: "401, whatever the credentials", fault: all(upstreamtest.Status(http.StatusUnauthorized, "UNAUTHORIZED")), forget: denied, serve: denied, stays: true},
		{name: "403", fault: all(upstreamtest.Status(http.StatusForbidden, "DENIED")), forget: denied, serve: denied, stays: true},
		{name: "404 to HEAD, and 403 to GET", fault: func(r *upstreamtest.Registry) {
			r.Always("HEAD", upstreamtest.Status(http.StatusNotFound, "MANIFEST_UNKNOWN"))
			r.Always("GET", upstreamtest.Status(http.StatusForbidden, "DENIED"))
		}, forget: denied, serve: denied, stays: true},
		{name: "451", fault: all(upstreamtest.Status(http.StatusUnavailableForLegalReasons, "DENIED")), forget: denied, serve: denied, stays: true},
		{name: "404 with a web page", fault: all(page(http.StatusNotFound, "text/html", "<html><body>not here</body></html>")), forget: staleAnswer, serve: staleAnswer, stays: true},
		{name: "404 with a line of text from an ingress", fault: all(page(http.StatusNotFound, "text/plain", "default backend - 404")), forget: staleAnswer, serve: staleAnswer, stays: true},
		{name: "403 with a web page", fault: all(page(http.StatusForbidden, "text/html", "<html><body>blocked</body></html>")), forget: staleAnswer, serve: staleAnswer, stays: true},
		{name: "429", fault: all(upstreamtest.RateLimited(7)), forget: staleAnswer, serve: staleAnswer, stays: true},
		{name: "500", fault: all(upstreamtest.Status(http.StatusInternalServerError, "UNKNOWN")), forget: staleAnswer, serve: staleAnswer, stays: true},
		{name: "200 with HTML", fault: all(upstreamtest.HTML()), forget: staleAnswer, serve: staleAnswer, stays: true},
		{name: "another digest, and 404 by that digest", fault: movedAndNotByDigest(upstreamtest.Status(http.StatusNotFound, "MANIFEST_UNKNOWN")), forget: movedAnswer, serve: movedAnswer, stays: true, moves: true},
		{name: "another digest, and a web page by that digest", fault: movedAndNotByDigest(upstreamtest.Page(http.StatusNotFound)), forget: movedAnswer, serve: movedAnswer, stays: true, moves: true},
		{name: "another digest, and 400 by that digest", fault: movedAndNotByDigest(upstreamtest.Status(http.StatusBadRequest, "MANIFEST_INVALID")), forget: movedAnswer, serve: movedAnswer, stays: true, moves: true},
		{name: "another digest, and 503 by that digest", fault: movedAndNotByDigest(upstreamtest.Status(http.StatusServiceUnavailable, "UNKNOWN")), forget: staleAnswer, serve: staleAnswer, stays: true, moves: true},
		{name: "another digest, 404 by that digest, and another one's bytes by the tag", fault: func(r *upstreamtest.Registry) {
			movedAndNotByDigest(upstreamtest.Status(http.StatusNotFound, "MANIFEST_UNKNOWN"))(r)
			r.Always("GET manifests app 1", upstreamtest.Corrupt(3))
		}, forget: staleAnswer, serve: staleAnswer, stays: true, moves: true},
		{name: "nothing", fault: all(upstreamtest.Silent()), forget: staleAnswer, serve: staleAnswer, stays: true, silent: true},
		{name: "nothing: the connection is refused", fault: func(r *upstreamtest.Registry) { r.Stop() }, forget: staleAnswer, serve: staleAnswer, stays: true},
	}
}

// movedAndNotByDigest has the tag point at a manifest that is there by the tag
// alone.
func movedAndNotByDigest(f upstreamtest.Fault) func(*upstreamtest.Registry) {
	return func(r *upstreamtest.Registry) {
		moved, _ := r.AddImage("app", "1", upstreamtest.Bytes(2, 1000))
		r.Always(upstreamtest.Short(moved.Digest.String()), f)
	}
}

// page answers a status as somebody does who is no registry.
func page(status int, mediaType, text string) upstreamtest.Fault {
	return func(_ *upstreamtest.Registry, w http.ResponseWriter, _ *http.Request, _ upstreamtest.Request) {
		w.Header().Set("Content-Type", mediaType)
		w.WriteHeader(status)
		_, _ = w.Write([]byte(text))
	}
}

func tagFaults(t *testing.T) string {
	var lines faultLines
	t.Run("rows", func(t *testing.T) {
		for i, row := range tagRows() {
			t.Run(row.name, func(t *testing.T) {
				t.Parallel()
				forget, forgetStays := runTagFault(t, row, false)
				serve, serveStays := runTagFault(t, row, true)
				if forget != row.forget || serve != row.serve {
					t.Errorf("the client saw %q, and %q where deleted tags are served; want %q and %q", forget, serve, row.forget, row.serve)
				}
				if forgetStays != row.stays || !serveStays {
					t.Errorf("on record: %v, and %v where deleted tags are served; want %v and true", forgetStays, serveStays, row.stays)
				}
				lines.add(i, row.name, forget, yes(forgetStays), serve)
			})
		}
	})
	return "## Cached tags\n\nThe tag has been pulled and has to be checked. With `deleted: serve`, and for pinned images, it stays in the cache whatever the upstream says.\n\n" +
		lines.table("the upstream says", "the client sees", "the tag stays in the cache", "with `deleted: serve` the client sees")
}

// isMoved reports whether a client got what the tag points at now.
func isMoved(r *upstreamtest.Registry, a errorResponse) bool {
	return bytes.Equal(a.body, r.BodyOf("app", "1"))
}

var goneSince = regexp.MustCompile(`^299 - "the upstream has deleted this tag: gone since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"$`)

// runTagFault returns what a client sees, and whether the tag is on record
// afterwards.
func runTagFault(t *testing.T, row tagRow, serve bool) (sees string, stays bool) {
	fake := upstreamtest.New(t)
	manifest, _ := fake.AddImage("app", "1", upstreamtest.Bytes(1, 1000))
	const path = "/v2/app/manifests/1"
	right := func(a errorResponse) bool {
		return a.status == http.StatusOK && a.broken == nil && manifest.Digest.Algorithm().FromBytes(a.body) == manifest.Digest
	}
	s := setup{dir: t.TempDir(), silent: row.silent, options: func(o *pulling.Options) {
		o.Rules.TagTTL = 0
		o.Upstreams[0].ServeDeleted = serve
	}}
	mir := newMirror(t, fake, s)
	if a := mir.get(path); !right(a) {
		t.Fatalf("the first pull: %d %s", a.status, a.body)
	}
	row.fault(fake)
	a := mir.get(path)
	warnings := strings.Join(a.header.Values("Warning"), "; ")
	switch {
	case row.moves && a.status == http.StatusOK && isMoved(fake, a):
		sees = movedAnswer
	case a.status == http.StatusOK && !right(a):
		sees = "200 with wrong bytes"
	case goneSince.MatchString(warnings):
		sees = "200, Warning: 299, gone since then"
	case a.status == http.StatusOK && warnings != "":
		sees = "200, Warning: " + warnings[:3]
	case a.status == http.StatusOK:
		sees = "200"
	default:
		sees = fmt.Sprintf("%d %s", a.status, a.code)
	}
	mir.stop()
	offline := newMirror(t, fake, setup{dir: s.dir, options: func(o *pulling.Options) { o.Rules.Offline = true }})
	kept := offline.get(path)
	stays = right(kept) || row.moves && isMoved(fake, kept)
	offline.stop()
	// Whatever it was, an upstream that is mended is believed.
	fake.Mend()
	fake.Start()
	again := newMirror(t, fake, s)
	if a := again.get(path); a.status != http.StatusOK || !isMoved(fake, a) || a.header.Get("Warning") != "" {
		t.Errorf("mended: %d, Warning: %s", a.status, a.header.Get("Warning"))
	}
	again.stop()
	return sees, stays
}
