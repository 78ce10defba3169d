package proxy_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// routeFault is something that an upstream answers to a question about
// referrers.
type routeFault struct {
	name  string
	fault upstreamtest.Fault
	// refuses marks a registry's own word that this may not be read.
	refuses bool
	// page marks what is made for people, and says nothing about referrers.
	page bool
	// leads marks what leads out of the API: on its own route that is how one
	// without the API may answer (W55).
	leads  bool
	silent bool
}

// routeFaults are answers that clients misread on the referrers route: Docker
// fails a pull over a page or a redirect (W34, F21), and cosign reads 401, 403,
// 405, 429 and 5xx as "no signatures found" (F24).
func routeFaults() []routeFault {
	var all []routeFault
	add := func(name string, f upstreamtest.Fault) *routeFault {
		all = append(all, routeFault{name: name, fault: f})
		return &all[len(all)-1]
	}
	for _, status := range []int{200, 201, 202, 203, 400, 401, 402, 403, 404, 405, 406, 407, 408, 410, 429, 451, 500, 501, 502, 503, 504, 520} {
		access := slices.Contains([]int{401, 402, 403, 451}, status)
		add(fmt.Sprintf("%d with a page", status), upstreamtest.Page(status)).page = true
		add(fmt.Sprintf("%d with a line of text", status), upstreamtest.Said(status, "text/plain", "page not found"))
		add(fmt.Sprintf("%d with nothing", status), upstreamtest.Empty(status)).refuses = access
		add(fmt.Sprintf("%d as a registry says it", status), upstreamtest.Status(status, "UNKNOWN")).refuses = access
	}
	for _, status := range []int{300, 301, 302, 303, 304, 305, 307, 308} {
		to := add(fmt.Sprintf("%d to a page of its own", status), upstreamtest.ToPage(status, "/login"))
		to.page, to.leads = true, true
		add(fmt.Sprintf("%d to nowhere", status), upstreamtest.Empty(status)).page = true
	}
	for name, to := range map[string]string{
		"a link-local address": "http://169.254.169.254/latest", "another scheme": "javascript:alert(1)", "a path": "/sign-in", "what no URL is": "http://%zz/",
	} {
		f := add("a redirect to "+name, upstreamtest.Redirect(to))
		f.page, f.leads = true, true
	}
	add("redirects in a circle", upstreamtest.RedirectLoop()).page = true
	add("a challenge by a page", upstreamtest.Combine(upstreamtest.WithHeader("WWW-Authenticate", `Basic realm="sign in"`), upstreamtest.Page(http.StatusUnauthorized))).page = true
	add("a challenge without a realm", upstreamtest.Combine(upstreamtest.WithHeader("WWW-Authenticate", `Bearer`), upstreamtest.Empty(http.StatusUnauthorized))).refuses = true
	add("a page with headers for a browser", upstreamtest.Combine(upstreamtest.WithHeader("Set-Cookie", "a=b"), upstreamtest.WithHeader("Refresh", "0; url=/login"), upstreamtest.Page(http.StatusOK))).page = true
	add("a page that calls itself an index", upstreamtest.Said(http.StatusOK, ocispec.MediaTypeImageIndex, "<html></html>")).page = true
	add("an index that calls itself a page", upstreamtest.Typed("text/html"))
	add("204", upstreamtest.Empty(http.StatusNoContent)).page = true
	for _, body := range []string{``, `{}`, `null`, `[]`, `"x"`, `{"schemaVersion":2,"manifests":"x"}`, `{"errors":[{"code":"UNKNOWN"}]}`, `{"schemaVersion":2,"mani`} {
		add("200 with "+strconv.Quote(body), upstreamtest.Said(http.StatusOK, ocispec.MediaTypeImageIndex, body)).page = true
	}
	add("a broken connection", upstreamtest.Hangup())
	add("a body that is cut", upstreamtest.CutAfter(10))
	add("no headers", upstreamtest.Silent()).silent = true
	return all
}

// TestTheReferrersRouteAnswersAsARegistryWhateverItsUpstreamDoes holds that no
// page, no redirect and no 405 ever comes through it (W34, W55), and that 403
// does only where a registry itself refuses.
func TestTheReferrersRouteAnswersAsARegistryWhateverItsUpstreamDoes(t *testing.T) {
	t.Parallel()
	const seenBefore = "the API, which was seen before"
	for _, fault := range routeFaults() {
		for where, match := range map[string]string{"the API": "referrers app", seenBefore: "referrers app", "the tag": "manifests app", "everything": ""} {
			t.Run(fault.name+", "+where, func(t *testing.T) {
				t.Parallel()
				fake := upstreamtest.New(t, upstreamtest.WithReferrers())
				first, _ := fake.AddImage("app", "1", []byte("first"))
				second, _ := fake.AddImage("app", "2", []byte("second"))
				m := newMirror(t, fake, setup{once: true, silent: fault.silent})
				if where == seenBefore {
					other, _ := fake.AddImage("app", "3", []byte("other"))
					m.askReferrers(http.MethodGet, "/v2/app/referrers/"+other.Digest.String(), nil)
				}
				fake.Always(match, fault.fault)
				var statuses []int
				for _, ask := range []struct{ method, subject string }{
					{http.MethodGet, first.Digest.String()},
					{http.MethodHead, second.Digest.String()},
					{http.MethodHead, first.Digest.String()},
					{http.MethodGet, second.Digest.String()},
				} {
					statuses = append(statuses, m.askReferrers(ask.method, "/v2/app/referrers/"+ask.subject, nil).status)
				}
				if slices.Min(statuses) != slices.Max(statuses) {
					t.Errorf("HEAD is answered otherwise than GET: %v", statuses)
				}
				switch status := statuses[0]; {
				case status == http.StatusNotFound:
					t.Error("404: no registry has said that the repository is not there")
				case status == http.StatusForbidden && !fault.refuses:
					t.Error("403, which no registry said")
				case status == http.StatusOK && fault.page && (where != "the API" || !fault.leads):
					t.Error("nothing refers, says a page")
				}
			})
		}
	}
}

// TestTheReferrersRouteAnswersAsARegistryHoweverItIsAsked is about paths that a
// router of its own would clean with a redirect, and answer with a page.
func TestTheReferrersRouteAnswersAsARegistryHoweverItIsAsked(t *testing.T) {
	fake := upstreamtest.New(t, upstreamtest.WithReferrers())
	subject, _ := fake.AddImage("app", "1", []byte("layer"))
	fake.AddReferrer("app", subject, "application/vnd.example", []byte("referrer"))
	m := newMirror(t, fake, setup{once: true})
	d := subject.Digest.String()
	for _, c := range []struct {
		name, path string
		status     int
		code       string
	}{
		{"as it is", "/v2/app/referrers/" + d, 200, ""},
		{"with a prefix", "/v2/hub.test/app/referrers/" + d, 200, ""},
		{"with ns", "/v2/app/referrers/" + d + "?ns=hub.test", 200, ""},
		{"with an escaped colon", "/v2/app/referrers/" + strings.Replace(d, ":", "%3A", 1), 200, ""},
		{"with a filter", "/v2/app/referrers/" + d + "?artifactType=application/vnd.example", 200, ""},
		{"with a filter that finds nothing", "/v2/app/referrers/" + d + "?artifactType=x", 200, ""},
		{"with parameters that nobody knows", "/v2/app/referrers/" + d + "?digest=x&redirect=/login", 200, ""},
		{"a slash at the end", "/v2/app/referrers/" + d + "/", 404, "UNSUPPORTED"},
		{"two slashes at the start", "//v2/app/referrers/" + d, 404, "UNSUPPORTED"},
		{"two slashes behind the version", "/v2//app/referrers/" + d, 400, "NAME_INVALID"},
		{"two slashes behind the name", "/v2/app//referrers/" + d, 400, "NAME_INVALID"},
		{"two slashes before the digest", "/v2/app/referrers//" + d, 404, "UNSUPPORTED"},
		{"a dot", "/v2/./app/referrers/" + d, 400, "NAME_INVALID"},
		{"two dots", "/v2/x/../app/referrers/" + d, 400, "NAME_INVALID"},
		{"two dots behind the route", "/v2/app/referrers/../referrers/" + d, 400, "NAME_INVALID"},
		{"two dots that are escaped", "/v2/x/%2e%2e/app/referrers/" + d, 400, "NAME_INVALID"},
		{"a slash that is escaped", "/v2/app%2Freferrers/" + d, 404, "UNSUPPORTED"},
		{"no digest", "/v2/app/referrers", 404, "UNSUPPORTED"},
		{"no digest but a slash", "/v2/app/referrers/", 400, "DIGEST_INVALID"},
		{"no name", "/v2/referrers/" + d, 404, "UNSUPPORTED"},
		{"no version", "/app/referrers/" + d, 404, "UNSUPPORTED"},
		{"a tag", "/v2/app/referrers/latest", 400, "DIGEST_INVALID"},
		{"a digest that is cut", "/v2/app/referrers/" + d[:40], 400, "DIGEST_INVALID"},
		{"a digest in capitals", "/v2/app/referrers/" + strings.ToUpper(d), 400, "DIGEST_INVALID"},
		{"a digest that nobody can prove", "/v2/app/referrers/md5:d41d8cd98f00b204e9800998ecf8427e", 400, "DIGEST_INVALID"},
		{"a digest with more behind it", "/v2/app/referrers/" + d + "%00", 400, "DIGEST_INVALID"},
		{"a name in capitals", "/v2/App/referrers/" + d, 400, "NAME_INVALID"},
		{"an upstream that is none, as prefix", "/v2/elsewhere.test/app/referrers/" + d, 404, "NAME_UNKNOWN"},
		{"an upstream that is none, as ns", "/v2/app/referrers/" + d + "?ns=elsewhere.test", 404, "NAME_UNKNOWN"},
		{"an upstream without a repository", "/v2/hub.test/referrers/" + d, 404, "NAME_UNKNOWN"},
		{"a query that can't be read", "/v2/app/referrers/" + d + "?artifactType=%zz", 400, "UNSUPPORTED"},
		{"a page that begins nowhere", "/v2/app/referrers/" + d + "?last=x", 400, "DIGEST_INVALID"},
		{"ORAS's legacy route", "/v2/app/_oras/artifacts/referrers?digest=" + d, 404, "UNSUPPORTED"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, header := range []http.Header{nil, {"Accept": {"text/html"}}, {"Host": {"virtual.test"}}} {
				for _, method := range []string{http.MethodGet, http.MethodHead} {
					a := m.askReferrers(method, c.path, header)
					inside := header.Get("Host") != "" && c.code == "NAME_UNKNOWN" // the host has said which upstream is meant
					if !inside && (a.status != c.status || method == http.MethodGet && a.code != c.code) {
						t.Errorf("%s %v: %d %s, want %d %s", method, header, a.status, a.code, c.status, c.code)
					}
				}
			}
		})
	}
	// The specification has no other methods there, and 405 says so.
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions} {
		a := m.do(method, "/v2/app/referrers/"+d, nil)
		if a.status != http.StatusMethodNotAllowed || a.code != "UNSUPPORTED" || a.header.Get("Allow") != "GET, HEAD" || a.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %s %v", method, a.status, a.body, a.header)
		}
	}
}

// askReferrers asks the referrers route, follows no redirect, and holds that
// the answer is a registry's.
func (m *mirror) askReferrers(method, path string, header http.Header) errorResponse {
	m.t.Helper()
	m.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	a := m.do(method, path, header)
	wrong := func(format string, args ...any) {
		m.t.Helper()
		m.t.Errorf("%s %s: %d: %s", method, path, a.status, fmt.Sprintf(format, args...))
	}
	if a.broken != nil {
		wrong("broken: %v", a.broken)
		return a
	}
	mediaType := "application/json"
	switch {
	case a.status == http.StatusOK:
		mediaType = ocispec.MediaTypeImageIndex
	case a.status < http.StatusBadRequest, a.status == http.StatusUnauthorized, a.status == http.StatusMethodNotAllowed, a.status == http.StatusInternalServerError:
		wrong("no answer of a mirror")
	}
	if got := a.header.Get("Content-Type"); got != mediaType {
		wrong("is of type %q", got)
	}
	for _, name := range []string{"Location", "WWW-Authenticate", "Set-Cookie", "Refresh", "Allow"} {
		if got := a.header.Get(name); got != "" {
			wrong("has %s: %s", name, got)
		}
	}
	if length, err := strconv.Atoi(a.header.Get("Content-Length")); err != nil || length == 0 || method == http.MethodGet && length != len(a.body) {
		wrong("Content-Length %q over %d bytes", a.header.Get("Content-Length"), len(a.body))
	}
	if method == http.MethodHead {
		return a
	}
	var index struct{ Manifests *[]ocispec.Descriptor }
	if a.status == http.StatusOK && (json.Unmarshal(a.body, &index) != nil || index.Manifests == nil) || a.status != http.StatusOK && a.code == "" {
		wrong("%s", a.body)
	}
	return a
}
