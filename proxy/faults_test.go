package proxy_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// A row of the fault table: what an upstream does, and what comes of it for a
// blob and for a manifest by tag that nobody has pulled before.
type faultRow struct {
	name  string
	blob  upstreamtest.Fault // nil: the fault is elsewhere, see setup
	setup func(*upstreamtest.Registry, *setup)
	// What clients see: a status with a code, 0 for a broken connection; for
	// the manifest the same.
	blobSees, manifestSees string
	// kept says whether the blob is kept after it.
	kept bool
	// only "blob" or "manifest" where the other makes no sense.
	only string
	auth upstreamtest.Auth
	// silent marks what a time limit has to end.
	silent bool
	// stays marks what no mending upstream changes: the configuration has to.
	stays bool
}

const (
	sound  = "200, whole"
	broken = "200, then a broken connection"
)

// slowly gives a client time to have bytes before the last of them come: where
// all has come before anything went out, its answer is an error, and no broken
// connection.
func slowly(f upstreamtest.Fault) upstreamtest.Fault {
	return upstreamtest.Combine(upstreamtest.Trickle(2<<10, 40), f)
}

func faultRows() []faultRow {
	const size = 64 << 10
	sequence := func(faults ...upstreamtest.Fault) func(r *upstreamtest.Registry, _ *setup) {
		return func(r *upstreamtest.Registry, _ *setup) {
			for _, f := range faults {
				r.Once("GET blobs", f)
			}
		}
	}
	return []faultRow{
		{name: "the body is cut off, once", setup: sequence(upstreamtest.CutAfter(size / 2)), blobSees: sound, kept: true, only: "blob"},
		{name: "the body is cut off, once, and ranges are not supported", setup: sequence(upstreamtest.NoRange(upstreamtest.CutAfter(size/2)), upstreamtest.NoRange(nil)), blobSees: sound, kept: true, only: "blob"},
		{name: "the body is cut off every time", blob: upstreamtest.CutAfter(100), blobSees: broken, manifestSees: "502 UNAVAILABLE"},
		{name: "the body stalls, once", silent: true, setup: sequence(upstreamtest.StallAfter(size / 2)), blobSees: sound, kept: true, only: "blob"},
		{name: "the body stalls every time", silent: true, blob: upstreamtest.StallAfter(100), blobSees: broken, manifestSees: "504 UNAVAILABLE"},
		{name: "one byte is wrong", blob: slowly(upstreamtest.Corrupt(100)), blobSees: broken, manifestSees: "502 UNAVAILABLE"},
		{name: "the body is longer than its manifest says", blob: upstreamtest.Longer(10), blobSees: "502 UNAVAILABLE", only: "blob"},
		{name: "the body is shorter than its manifest says", blob: upstreamtest.Shorter(10), blobSees: "502 UNAVAILABLE", only: "blob"},
		{name: "there is no Content-Length", blob: upstreamtest.NoLength(), blobSees: sound, manifestSees: sound, kept: true},
		{name: "the digest header is wrong", blob: upstreamtest.WrongDigest(), blobSees: sound, manifestSees: sound, kept: true},
		{name: "401, whatever the credentials", blob: upstreamtest.Status(http.StatusUnauthorized, "UNAUTHORIZED"), blobSees: "403 DENIED", manifestSees: "403 DENIED"},
		{name: "403", blob: upstreamtest.Status(http.StatusForbidden, "DENIED"), blobSees: "403 DENIED", manifestSees: "403 DENIED"},
		{name: "404", blob: upstreamtest.Status(http.StatusNotFound, "MANIFEST_UNKNOWN"), blobSees: "404 BLOB_UNKNOWN", manifestSees: "404 MANIFEST_UNKNOWN"},
		{name: "404 for the whole repository", blob: upstreamtest.Status(http.StatusNotFound, "NAME_UNKNOWN"), blobSees: "404 NAME_UNKNOWN", manifestSees: "404 NAME_UNKNOWN"},
		{name: "405", blob: upstreamtest.Status(http.StatusMethodNotAllowed, "UNSUPPORTED"), blobSees: "405 UNSUPPORTED", manifestSees: "405 UNSUPPORTED"},
		{name: "405 to HEAD", setup: func(r *upstreamtest.Registry, _ *setup) {
			r.Always("HEAD", upstreamtest.Status(http.StatusMethodNotAllowed, "UNSUPPORTED"))
		}, blobSees: sound, manifestSees: sound, kept: true},
		{name: "429 with Retry-After: 7", blob: upstreamtest.RateLimited(7), blobSees: "429 TOOMANYREQUESTS, Retry-After: 7", manifestSees: "429 TOOMANYREQUESTS, Retry-After: 7"},
		{name: "500", blob: upstreamtest.Status(http.StatusInternalServerError, "UNKNOWN"), blobSees: "502 UNAVAILABLE", manifestSees: "502 UNAVAILABLE"},
		{name: "503", blob: upstreamtest.Status(http.StatusServiceUnavailable, "UNKNOWN"), blobSees: "502 UNAVAILABLE", manifestSees: "502 UNAVAILABLE"},
		{name: "503, once", setup: func(r *upstreamtest.Registry, _ *setup) {
			r.Once("GET", upstreamtest.Status(http.StatusServiceUnavailable, "UNKNOWN"))
		}, blobSees: sound, manifestSees: sound, kept: true},
		{name: "200 with HTML", blob: upstreamtest.HTML(), blobSees: "502 UNAVAILABLE", manifestSees: "502 UNAVAILABLE"},
		{name: "the connection breaks before the headers", blob: upstreamtest.Hangup(), blobSees: "502 UNAVAILABLE", manifestSees: "502 UNAVAILABLE"},
		{name: "no headers come", silent: true, blob: upstreamtest.Silent(), blobSees: "504 UNAVAILABLE", manifestSees: "504 UNAVAILABLE"},
		{name: "a redirect loop", blob: upstreamtest.RedirectLoop(), blobSees: "502 UNAVAILABLE", manifestSees: "502 UNAVAILABLE"},
		{name: "a redirect to a link-local address", blob: upstreamtest.Redirect("http://169.254.169.254/latest"), blobSees: "502 UNAVAILABLE", manifestSees: "502 UNAVAILABLE"},
		{name: "a redirect to another scheme", blob: upstreamtest.Redirect("file:///etc/passwd"), blobSees: "502 UNAVAILABLE", manifestSees: "502 UNAVAILABLE"},
		{name: "the token server is down", auth: upstreamtest.Auth{Scheme: "token"}, setup: func(r *upstreamtest.Registry, _ *setup) {
			r.Always("GET token", upstreamtest.Status(http.StatusServiceUnavailable, "UNKNOWN"))
		}, blobSees: "502 UNAVAILABLE", manifestSees: "502 UNAVAILABLE"},
		{name: "the token server refuses", auth: upstreamtest.Auth{Scheme: "token"}, setup: func(r *upstreamtest.Registry, _ *setup) {
			r.Always("GET token", upstreamtest.Status(http.StatusUnauthorized, "UNAUTHORIZED"))
		}, blobSees: "403 DENIED", manifestSees: "403 DENIED"},
		{name: "the token server is in another domain", auth: upstreamtest.Auth{Scheme: "token", Realm: "https://tokens.elsewhere.test/"}, manifestSees: "502 UNAVAILABLE", only: "manifest", stays: true},
		{name: "the host is unknown", setup: func(_ *upstreamtest.Registry, s *setup) { s.endpoint = "http://registry.invalid" }, blobSees: "502 UNAVAILABLE", manifestSees: "502 UNAVAILABLE"},
		{name: "the connection is refused", setup: func(r *upstreamtest.Registry, _ *setup) { r.Stop() }, blobSees: "502 UNAVAILABLE", manifestSees: "502 UNAVAILABLE"},
	}
}

// TestFaultTable lets an upstream fail in every way that is known, holds what
// clients see, what is kept and whether the next pull works against the table,
// and holds the page that shows it.
func TestFaultTable(t *testing.T) {
	t.Parallel()
	sections := []struct {
		name string
		text func(t *testing.T) string
	}{
		{"content", contentFaults},
		{"real", realFaults},
		{"tags", tagFaults},
		{"referrers", referrersFaults},
		{"referring", referringFaults},
		{"routes", routesFaults},
		{"disk", diskFaults},
		{"broken", brokenFaults},
		{"ranges", rangeFaults},
		{"pieces", pieceFaults},
		{"connections", connectionFaults},
		{"slow", slowFaults},
		{"hostile", hostileFaults},
		{"whose", whoseFaults},
		{"offline", offlineFaults},
		{"absent", absentFaults},
		{"clients", clientFaults},
		{"credentials", credentialFaults},
		{"metrics", metricFaults},
	}
	texts := make([]string, len(sections))
	// Beside one another, since most rows wait and do nothing.
	t.Run("sections", func(t *testing.T) {
		for i, section := range sections {
			t.Run(section.name, func(t *testing.T) {
				t.Parallel()
				texts[i] = "\n" + section.text(t)
			})
		}
	})
	if !t.Failed() {
		page := "# What happens when something fails\n\nWritten by `go test ./proxy -run TestFaultTable`.\n" + strings.Join(texts, "")
		holdPage(t, filepath.Join("..", "FAULTS.md"), page)
	}
}

// faultLines are lines of a table, in the order of their numbers.
type faultLines struct {
	mu    sync.Mutex
	lines []string
}

func (l *faultLines) add(number int, columns ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprintf("%04d| %s |\n", number, strings.Join(columns, " | ")))
}

func (l *faultLines) table(columns ...string) string {
	slices.Sort(l.lines)
	text := "| " + strings.Join(columns, " | ") + " |\n|" + strings.Repeat("---|", len(columns)) + "\n"
	for _, line := range l.lines {
		text += line[4:]
	}
	return text
}

func contentFaults(t *testing.T) string {
	var lines faultLines
	t.Run("rows", func(t *testing.T) {
		for i, row := range faultRows() {
			for j, target := range []string{"blob", "manifest"} {
				if row.only != "" && row.only != target {
					continue
				}
				t.Run(row.name+", "+target, func(t *testing.T) {
					t.Parallel()
					sees, kept, mended := runFault(t, row, target)
					want := row.blobSees
					if target == "manifest" {
						want = row.manifestSees
					}
					if sees != want {
						t.Errorf("the client saw %q, want %q", sees, want)
					}
					if kept != (want == sound) {
						t.Errorf("kept: %v", kept)
					}
					if mended == row.stays {
						t.Error("the next pull does not work")
					}
					lines.add(2*i+j, row.name, target, sees, yes(kept), yes(mended))
				})
			}
		}
	})
	return "## Manifests and blobs\n\nThe content has never been pulled.\n\n" +
		lines.table("the upstream", "for a", "the client sees", "cached", "the next pull works")
}

// holdPage compares a generated page with the one in the repository, and
// writes it where ENTREPOT_WRITE_PAGES is set.
func holdPage(t *testing.T, path, want string) {
	t.Helper()
	if os.Getenv("ENTREPOT_WRITE_PAGES") != "" {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s is out of date (%v): run the test with ENTREPOT_WRITE_PAGES=1", path, err)
		kept := strings.Split(string(got), "\n")
		for line := range strings.SplitSeq(want, "\n") {
			if !slices.Contains(kept, line) {
				t.Log(line)
			}
		}
	}
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func runFault(t *testing.T, row faultRow, target string) (sees string, kept, mended bool) {
	const size = 64 << 10
	fake := upstreamtest.New(t, upstreamtest.WithAuth(row.auth))
	layer := upstreamtest.Bytes(1, size)
	manifest, m := fake.AddImage("app", "1", layer)
	s := setup{dir: t.TempDir(), silent: row.silent}
	path := "/v2/app/manifests/1"
	digest := manifest.Digest
	if target == "blob" {
		digest = m.Layers[0].Digest
		path = "/v2/app/blobs/" + digest.String()
		// The manifest has been pulled: it tells the blob's size.
		first := newMirror(t, fake, s)
		if a := first.get("/v2/app/manifests/1"); a.status != http.StatusOK {
			t.Fatalf("the manifest: %d %s", a.status, a.body)
		}
		first.stop()
	}
	if row.setup != nil {
		row.setup(fake, &s)
	}
	if row.blob != nil {
		fake.Always("", row.blob)
	}
	mir := newMirror(t, fake, s)
	began := time.Now()
	a := mir.get(path)
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("the answer took %s", took)
	}
	wholeSize := int64(size)
	if target == "manifest" {
		wholeSize = manifest.Size
	}
	switch {
	case a.status == http.StatusOK && a.broken != nil:
		sees = broken
		if int64(len(a.body)) >= wholeSize {
			t.Errorf("all %d bytes went out before the connection broke", len(a.body))
		}
	case a.status == http.StatusOK && int64(len(a.body)) == wholeSize && digest.Algorithm().FromBytes(a.body) == digest:
		sees = sound
	case a.status == http.StatusOK:
		sees = fmt.Sprintf("200 with %d wrong bytes", len(a.body))
	case a.broken != nil && a.status == 0:
		sees = fmt.Sprintf("no answer: %v", a.broken)
	default:
		sees = fmt.Sprintf("%d %s", a.status, a.code)
		if after := a.header.Get("Retry-After"); after != "" {
			sees += ", Retry-After: " + after
		}
	}
	mir.stop() // with it ends every download
	fake.Mend()
	fake.Start()
	again := newMirror(t, fake, setup{dir: s.dir})
	kept = again.keeps(digest)
	next := again.get(path)
	mended = next.status == http.StatusOK && next.broken == nil && digest.Algorithm().FromBytes(next.body) == digest
	return sees, kept, mended
}
