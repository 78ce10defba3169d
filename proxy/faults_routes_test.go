package proxy_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	pulling "github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// routesRow is what an upstream answers about referrers, by its API and under
// the tag. Nil is the truth: what it lists, and that there is no such tag.
type routesRow struct {
	api, tag         upstreamtest.Fault
	apiName, tagName string
	// says is what the API's answer is worth.
	says worth
	// silent marks what a time limit has to end: the tag is waited for as any
	// manifest is, the API no longer than clients are patient.
	silent bool
}

// worth is whether an answer of the API is the upstream's word.
type worth int

const (
	sayNothing worth = iota
	// lacks says that there is no API (W55): the word of an upstream whose API
	// was never seen, and of no other.
	lacks
	// answers is a word about the subject, whether the API was seen or not.
	answers
)

func routesRows() []routesRow {
	notFound, limited, down := upstreamtest.Status(http.StatusNotFound, "MANIFEST_UNKNOWN"), upstreamtest.RateLimited(7), upstreamtest.Status(http.StatusBadGateway, "UNKNOWN")
	nothing, page := upstreamtest.Silent(), upstreamtest.Page(http.StatusOK)
	byAPI := func(name string, f upstreamtest.Fault, says worth) routesRow {
		return routesRow{api: f, apiName: name, tagName: "404", says: says}
	}
	byTag := func(name string, f upstreamtest.Fault) routesRow {
		return routesRow{tag: f, tagName: name, apiName: "its list", says: answers}
	}
	return []routesRow{
		byAPI("its list", nil, answers),
		byAPI("its list, with a `Warning: 110`", upstreamtest.WithHeader("Warning", `110 - "Response is Stale"`), sayNothing), // a mirror that could not ask
		byAPI("its list, with a `Warning: 299`", upstreamtest.WithHeader("Warning", `299 - "moving next month"`), answers),
		byAPI("404, a line of text", upstreamtest.Said(http.StatusNotFound, "text/plain; charset=utf-8", "404 page not found\n"), lacks),
		byAPI("404, a registry's error", notFound, lacks),
		byAPI("404 without a body", upstreamtest.Empty(http.StatusNotFound), lacks),
		byAPI("404, a page", upstreamtest.Page(http.StatusNotFound), sayNothing),
		byAPI("400", upstreamtest.Status(http.StatusBadRequest, "UNSUPPORTED"), answers), // W43
		byAPI("401", upstreamtest.Status(http.StatusUnauthorized, "UNAUTHORIZED"), sayNothing),
		byAPI("403", upstreamtest.Status(http.StatusForbidden, "DENIED"), sayNothing),
		byAPI("405", upstreamtest.Status(http.StatusMethodNotAllowed, "UNSUPPORTED"), lacks),
		byAPI("429", limited, sayNothing),
		byAPI("502", down, sayNothing),
		byAPI("504", upstreamtest.Status(http.StatusGatewayTimeout, "UNKNOWN"), sayNothing),
		byAPI("nothing", nothing, sayNothing),
		byAPI("200, a page", page, sayNothing),
		byAPI("a redirect to a page", upstreamtest.ToPage(http.StatusSeeOther, "/login"), lacks),
		byTag("429", limited),
		byTag("502", down),
		{tag: nothing, tagName: "nothing", apiName: "its list", says: answers, silent: true},
		byTag("200, a page", page),
		{api: down, apiName: "502", tag: limited, tagName: "429"},
		{api: down, apiName: "502", tag: down, tagName: "502"},
		{api: down, apiName: "502", tag: page, tagName: "200, a page"},
		{api: limited, apiName: "429", tag: down, tagName: "502"},
	}
}

// What a mirror knows of a subject before it is asked.
const (
	nothingKept = "nothing is kept"
	oneKept     = "one was listed before"
	noneKept    = "none was listed before, of an image that is kept"
	attestation = "an attestation, never asked about"
)

// known says whether all that lists referrers has answered.
func (r routesRow) known(state string) bool {
	seen := state == oneKept || state == noneKept
	return r.tag == nil && (r.says == answers || r.says == lacks && !seen)
}

func routesFaults(t *testing.T) string {
	var api, tag faultLines
	states := []string{nothingKept, oneKept, noneKept, attestation}
	t.Run("rows", func(t *testing.T) {
		for i, row := range routesRows() {
			t.Run("API "+row.apiName+", tag "+row.tagName, func(t *testing.T) {
				t.Parallel()
				byAPI, byTag := make([]string, len(states)), make([]string, len(states))
				t.Run("states", func(t *testing.T) {
					for j, state := range states {
						t.Run(state+", by the API", func(t *testing.T) {
							t.Parallel()
							byAPI[j] = askedByAPI(t, row, state)
						})
						t.Run(state+", by the tag", func(t *testing.T) {
							t.Parallel()
							byTag[j] = askedByTag(t, row, state)
						})
					}
				})
				api.add(i, slices.Concat([]string{row.apiName, row.tagName}, byAPI)...)
				tag.add(i, slices.Concat([]string{row.apiName, row.tagName}, byTag)...)
			})
		}
	})
	columns := append([]string{"the API answers", "the tag answers"}, states...)
	return "## Referrers, by the API and by the tag\n\nThe manifest has no referrers, unless one was listed before, and the upstream has no tag `sha256-…` " +
		"for it. The upstream says so, or it answers as in the table. An invalid answer of the API (404, 405, a redirect) is a failure if the upstream has been seen to support the API; " +
		"otherwise it means that there is no API. A list with `Warning: 110` is one of a mirror that could not ask its own upstream.\n\nA request to the API is answered within five seconds, and never with a web page, a redirect, a 404 or a 405: some " +
		"clients take these for *none*, and some fail a pull over them. An unknown answer is a 503 or a 429.\n\n" + api.table(columns...) +
		"\nA client that requests the tag is pulling. The upstream's own 404 is passed on, with `Warning: 299` if the API could not be asked and nothing is known of it, " +
		"or with `Warning: 110` if the API's route answers *none* with one. If a list is known, the tag is built from it.\n\n" + tag.table(columns...)
}

// routesMirror is a mirror that knows what the state says, over an upstream
// that answers as the row says.
func routesMirror(t *testing.T, row routesRow, state string) (*mirror, ocispec.Descriptor) {
	t.Helper()
	fake := upstreamtest.New(t, upstreamtest.WithReferrers())
	subject, _ := fake.AddImage("app", "1", []byte("layer"))
	m := newMirror(t, fake, setup{once: true, silent: row.silent, options: func(o *pulling.Options) {
		o.Rules.ReferrersTTL, o.Rules.TagTTL = time.Nanosecond, time.Nanosecond
		o.Rules.Patience, o.Rules.MaxWait = 5*time.Second, 5*time.Second // as it is: some of these never answer
	}})
	before := ""
	switch state {
	case oneKept:
		fake.AddReferrer("app", subject, "application/vnd.example", []byte("signature"))
		before = "/v2/app/referrers/" + subject.Digest.String()
	case noneKept:
		if a := m.get("/v2/app/manifests/1"); a.status != http.StatusOK {
			t.Errorf("the image: %d %s", a.status, a.body)
		}
		before = "/v2/app/referrers/" + subject.Digest.String()
	case attestation:
		image := subject
		subject, _ = fake.AddImage("app", "", []byte("provenance"))
		subject.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
		subject.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": image.Digest.String()}
		fake.AddIndex("app", "attested", image, subject)
		before = "/v2/app/manifests/attested"
	}
	if before != "" {
		if a := m.get(before); a.status != http.StatusOK {
			t.Errorf("before: %d %s", a.status, a.body)
		}
	}
	if row.api != nil {
		fake.Always("referrers app "+upstreamtest.Short(subject.Digest.String()), row.api)
	}
	if row.tag != nil {
		fake.Always("manifests app "+referrers.TagOf(subject.Digest), row.tag)
	}
	return m, subject
}

// askedByAPI asks the API, and holds the answer against the rules.
func askedByAPI(t *testing.T, row routesRow, state string) string {
	m, subject := routesMirror(t, row, state)
	began := time.Now()
	a := m.askReferrers(http.MethodGet, "/v2/app/referrers/"+subject.Digest.String(), nil)
	if took := time.Since(began); took > 9*time.Second { // the upstream is waited for longer
		t.Errorf("the answer took %s", took)
	}
	m.stop()
	sees := routesSee(t, a)
	var right bool
	switch known := row.known(state); {
	case state == oneKept && known:
		right = sees == "200, one"
	case state == oneKept:
		right = sees == "200, one, Warning: 110"
	case known:
		right = sees == "200, none"
	case state == nothingKept:
		right = a.status == http.StatusServiceUnavailable || a.status == http.StatusTooManyRequests
	default:
		right = sees == "200, none, Warning: 110"
	}
	if !right {
		t.Error(sees)
	}
	return sees
}

// askedByTag asks for the tag, and holds the answer against the rules.
func askedByTag(t *testing.T, row routesRow, state string) string {
	m, subject := routesMirror(t, row, state)
	a := m.askReferrers(http.MethodGet, "/v2/app/manifests/"+referrers.TagOf(subject.Digest), nil)
	m.stop()
	sees := routesSee(t, a)
	const none = "404 MANIFEST_UNKNOWN"
	var right bool
	switch known := row.known(state); {
	case state == oneKept && known:
		right = sees == "200, one"
	case state == oneKept:
		right = sees == "200, one, Warning: 110"
	case known:
		right = sees == none
	case state == nothingKept && row.tag == nil:
		right = sees == none+", Warning: 299"
	case state == nothingKept:
		right = slices.Contains([]int{http.StatusBadGateway, http.StatusGatewayTimeout, http.StatusTooManyRequests}, a.status)
	default:
		right = sees == none+", Warning: 110"
	}
	if !right {
		t.Error(sees)
	}
	return sees
}

// routesSee is an answer in a few words.
func routesSee(t *testing.T, a errorResponse) string {
	t.Helper()
	sees := fmt.Sprintf("%d %s", a.status, a.code)
	if a.status == http.StatusOK {
		var index ocispec.Index
		if err := json.Unmarshal(a.body, &index); err != nil {
			t.Errorf("%s: %v", a.body, err)
		}
		sees = "200, " + map[int]string{0: "none", 1: "one"}[len(index.Manifests)]
	}
	if warning := a.header.Get("Warning"); warning != "" {
		code, _, _ := strings.Cut(warning, " ")
		sees += ", Warning: " + code
	}
	return sees
}
