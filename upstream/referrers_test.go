package upstream_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/upstream"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// attached is a registry with the API, on pages of one, and a subject with n
// referrers.
func attached(t *testing.T, n int, options ...upstreamtest.Option) (*upstreamtest.Registry, ocispec.Descriptor) {
	t.Helper()
	fake := upstreamtest.New(t, append([]upstreamtest.Option{upstreamtest.WithReferrers(), upstreamtest.WithPages(1)}, options...)...)
	subject, _ := fake.AddImage("app", "1", []byte("layer"))
	for i := range n {
		fake.AddReferrer("app", subject, "type/x", fmt.Appendf(nil, "payload %d", i))
	}
	return fake, subject
}

func count(lines []string, what string) (n int) {
	for _, line := range lines {
		if strings.Contains(line, what) {
			n++
		}
	}
	return n
}

// isUnknown says whether an error says no more than that nothing is known.
func isUnknown(err error) bool {
	var limited *upstream.RateLimitedError
	known := errors.Is(err, upstream.ErrNotFound) || errors.Is(err, upstream.ErrUnsupported) || errors.Is(err, upstream.ErrDenied)
	return (errors.Is(err, upstream.ErrUnavailable) || errors.As(err, &limited)) && !known
}

// Issue 12, point 1: only the first page may say that there is no API.
func TestALaterPageThatFailsLeavesTheListSoFar(t *testing.T) {
	for name, fault := range map[string]upstreamtest.Fault{
		"404":                            upstreamtest.Status(404, "MANIFEST_UNKNOWN"),
		"404 of a repository":            upstreamtest.Status(404, "NAME_UNKNOWN"),
		"404 page not found":             upstreamtest.Said(404, "text/plain", "404 page not found"),
		"400, as of an expired cursor":   upstreamtest.Status(400, "PAGINATION_NUMBER_INVALID"),
		"405":                            upstreamtest.Empty(405),
		"406":                            upstreamtest.Empty(406),
		"410":                            upstreamtest.Status(410, "MANIFEST_UNKNOWN"),
		"401":                            upstreamtest.Status(401, "UNAUTHORIZED"),
		"403":                            upstreamtest.Status(403, "DENIED"),
		"451":                            upstreamtest.Status(451, "DENIED"),
		"429":                            upstreamtest.RateLimited(5),
		"500":                            upstreamtest.Status(500, "UNKNOWN"),
		"501":                            upstreamtest.Status(501, "UNSUPPORTED"),
		"503":                            upstreamtest.Empty(503),
		"a page with 200":                upstreamtest.HTML(),
		"a page with 404":                upstreamtest.Page(404),
		"a redirect to a web site":       upstreamtest.Redirect("https://web.test/"),
		"null":                           upstreamtest.Body(indexType, []byte("null")),
		"an index that ends early":       upstreamtest.CutAfter(20),
		"a line that breaks":             upstreamtest.Hangup(),
		"a manifest":                     upstreamtest.Body(indexType, []byte(manifestBody)),
		"404 of one that is out of date": upstreamtest.Combine(upstreamtest.OutOfDate(), upstreamtest.Status(404, "MANIFEST_UNKNOWN")),
	} {
		fake, subject := attached(t, 3)
		fake.Always("referrers", upstreamtest.OnPage(2, fault))
		r := remote(t, fake.URL(), nil)
		list, err := r.Referrers(t.Context(), "app", subject.Digest)
		if !isUnknown(err) || len(list.Manifests) != 1 || time.Since(list.At) > time.Minute {
			t.Errorf("%s: %d referrers, at %s, %v; want the first page", name, len(list.Manifests), list.At, err)
		}
		fake.Mend()
		if list, err := r.Referrers(t.Context(), "app", subject.Digest); err != nil || len(list.Manifests) != 3 {
			t.Errorf("%s, mended: %d referrers, %v", name, len(list.Manifests), err)
		}
	}
}

// Issue 12, points 2 and 20; package manifest has the whole table.
func TestOnlyAnIndexListsReferrers(t *testing.T) {
	entry := `{"mediaType":"` + manifestType + `","digest":"` + noSubject.String() + `","size":1}`
	for name, c := range map[string]struct {
		body     string
		typ      string
		entries  int // -1: it says nothing
		unusable int
	}{
		"null":                        {body: `null`, entries: -1},
		"an object":                   {body: `{}`, entries: -1},
		"errors":                      {body: notThere, entries: -1},
		"an image manifest":           {body: manifestBody, entries: -1},
		"no manifests":                {body: `{"schemaVersion":2,"mediaType":"` + indexType + `"}`, entries: -1},
		"Manifests":                   {body: `{"schemaVersion":2,"mediaType":"` + indexType + `","Manifests":[]}`, entries: -1},
		"null without a type":         {body: `{"schemaVersion":2,"manifests":null}`, entries: -1},
		"another Content-Type":        {body: `{"schemaVersion":2,"manifests":[]}`, typ: "application/json", entries: -1},
		"a Docker list":               {body: `{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.list.v2+json","manifests":[]}`, entries: -1},
		"null for an empty list":      {body: `{"schemaVersion":2,"mediaType":"` + indexType + `","manifests":null}`}, // F35
		"its own type alone":          {body: `{"schemaVersion":2,"mediaType":"` + indexType + `","manifests":[]}`, typ: "application/json"},
		"a number among annotations":  {body: `{"schemaVersion":2,"manifests":[` + strings.Replace(entry, `"size":1`, `"size":1,"annotations":{"n":5,"a":"b"}`, 1) + `]}`, entries: 1},
		"an entry without its type":   {body: `{"schemaVersion":2,"manifests":[{"digest":"` + noSubject.String() + `","size":1}]}`, entries: 1},
		"an entry that is none":       {body: `{"schemaVersion":2,"manifests":[` + entry + `,{"digest":"x"}]}`, entries: 1, unusable: 1},
		"an algorithm of nobody here": {body: `{"schemaVersion":2,"manifests":[{"digest":"blake3:abcdef","size":1}]}`, entries: 1},
	} {
		if c.typ == "" {
			c.typ = indexType
		}
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) { say(w, 200, c.typ, c.body) })
		list, err := remote(t, s.URL, nil).Referrers(t.Context(), "app", noSubject)
		switch {
		case c.entries < 0:
			if !errors.Is(err, upstream.ErrInvalidResponse) || len(list.Manifests) > 0 {
				t.Errorf("%s: %+v, %v", name, list, err)
			}
		case err != nil || len(list.Manifests) != c.entries || list.Unusable != c.unusable || list.At.IsZero():
			t.Errorf("%s: %+v, %v", name, list, err)
		}
	}
}

// Issue 12, point 9.
func TestEveryFormOfLinkLeadsToTheNextPage(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("another host was asked") }))
	t.Cleanup(other.Close)
	for name, fault := range map[string]upstreamtest.Fault{
		"a list of relations":     upstreamtest.LinkWith(`<%s>; rel="last next"`),
		"in another order":        upstreamtest.LinkWith(`<%s>; title="a, <b>; c"; rel="next last"`),
		"without quotes":          upstreamtest.LinkWith(`<%s>; rel=next`),
		"in capitals":             upstreamtest.LinkWith(`<%s>; REL="NEXT"`),
		"behind another":          upstreamtest.LinkWith(`</v2/>; rel="first", <%s>; rel="next"`),
		"in a second header":      upstreamtest.LinkWith(`</v2/>; rel="first"`, `<%s>; rel="next"`),
		"beside one that is none": upstreamtest.LinkWith(`what is this`, `<%s>; rel="next"`),
		"at the registry itself": upstreamtest.Linked(func(r *upstreamtest.Registry, next *url.URL) string {
			return "<" + r.URL() + next.String() + `>; rel="next"`
		}),
		"at its name inside":         upstreamtest.LinkOn("https://registry.internal:5000"),
		"at a name that others have": upstreamtest.LinkOn(other.URL),
		"by a query alone":           upstreamtest.Linked(func(_ *upstreamtest.Registry, next *url.URL) string { return "<?" + next.RawQuery + `>; rel="next"` }),
	} {
		fake, subject := attached(t, 3)
		fake.Always("referrers", fault)
		list, err := remote(t, fake.URL(), nil).Referrers(t.Context(), "app", subject.Digest)
		if err != nil || len(list.Manifests) != 3 {
			t.Errorf("%s: %d referrers, %v", name, len(list.Manifests), err)
		}
	}
}

func TestALinkThatCannotBeReadIsNotTheLastPage(t *testing.T) {
	for name, fault := range map[string]upstreamtest.Fault{
		"without brackets":     upstreamtest.LinkWith(`%s; rel="next"`),
		"without a relation":   upstreamtest.LinkWith(`<%s>`),
		"without an end":       upstreamtest.LinkWith(`<%s; rel="next"`),
		"a quote that is open": upstreamtest.LinkWith(`<%s>; rel="next`),
		"no URL":               upstreamtest.LinkWith(`<http://[::1>; rel="next"`),
		"words":                upstreamtest.LinkWith(`what is this`),
		"an endless cursor":    upstreamtest.LinkWith(`<%s&x=` + strings.Repeat("x", 5000) + `>; rel="next"`),
	} {
		fake, subject := attached(t, 3)
		fake.Always("referrers", fault)
		list, err := remote(t, fake.URL(), nil).Referrers(t.Context(), "app", subject.Digest)
		if !errors.Is(err, upstream.ErrInvalidResponse) || len(list.Manifests) != 1 {
			t.Errorf("%s: %d referrers, %v", name, len(list.Manifests), err)
		}
	}
	// One that leads elsewhere is none to a next page.
	fake, subject := attached(t, 1)
	fake.Always("referrers", upstreamtest.WithHeader("Link", `</about>; rel="help"`, ``))
	if list, err := remote(t, fake.URL(), nil).Referrers(t.Context(), "app", subject.Digest); err != nil || len(list.Manifests) != 1 {
		t.Errorf("help: %d referrers, %v", len(list.Manifests), err)
	}
}

// Decision 8: the registry gets exactly the query that its Link named, and ns
// beside it where it is a mirror of many.
func TestANextPagesQueryIsPassedOnAsItIs(t *testing.T) {
	for _, namespace := range []bool{false, true} {
		var queries []string
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			queries = append(queries, r.URL.RawQuery)
			if len(queries) == 1 {
				w.Header().Set("Link", `<`+r.URL.Path+`?next_page=gAAA%2c==&z=1;2&a=%zz>; rel="next"`)
			}
			say(w, 200, indexType, `{"schemaVersion":2,"manifests":[]}`)
		})
		r := remote(t, s.URL, func(o *upstream.RemoteOptions) { o.SendNamespace = namespace })
		if _, err := r.Referrers(t.Context(), "app", noSubject); err != nil {
			t.Fatal(err)
		}
		want := []string{"", "next_page=gAAA%2c==&z=1;2&a=%zz"}
		if namespace {
			want = []string{"ns=hub.test", want[1] + "&ns=hub.test"}
		}
		if fmt.Sprint(queries) != fmt.Sprint(want) {
			t.Errorf("asked with %q, want %q", queries, want)
		}
	}
}

// A registry behind a proxy that adds a path does not know it.
func TestALinkWithoutThePathThatAProxyAddsIsAskedBelowIt(t *testing.T) {
	fake, subject := attached(t, 3)
	to, err := url.Parse(fake.URL())
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(http.StripPrefix("/registry", httputil.NewSingleHostReverseProxy(to)))
	t.Cleanup(front.Close)
	list, err := remote(t, front.URL+"/registry", nil).Referrers(t.Context(), "app", subject.Digest)
	if err != nil || len(list.Manifests) != 3 {
		t.Errorf("%d referrers, %v", len(list.Manifests), err)
	}
}

// Issue 12, point 22: bounded, and remembered.
func TestPagesThatLeadNowhereAreNotAskedForAgainAndAgain(t *testing.T) {
	for name, c := range map[string]struct {
		fault       upstreamtest.Fault
		pages       int
		first, more int // requests of the first question, and of three more
	}{
		"to itself":                {fault: upstreamtest.LinkToItself(), pages: 1, first: 1},
		"in a circle":              {fault: upstreamtest.LinkInACircle(), pages: 3, first: 3},
		"without end, nothing new": {fault: upstreamtest.LinkWithoutEnd(), pages: 1, first: 12},
	} {
		fake, subject := attached(t, 3)
		fake.Always("referrers", c.fault)
		r := remote(t, fake.URL(), nil)
		fake.Transcript()
		for n, most := range []int{c.first, c.more, c.more, c.more} {
			list, err := r.Referrers(t.Context(), "app", subject.Digest)
			if !errors.Is(err, upstream.ErrInvalidResponse) || len(list.Manifests) != c.pages {
				t.Errorf("%s: %d referrers, %v", name, len(list.Manifests), err)
			}
			if asked := count(fake.Transcript(), "GET referrers"); asked > most {
				t.Errorf("%s: question %d took %d requests, want at most %d", name, n+1, asked, most)
			}
		}
		// It says nothing of other subjects, whatever stands before the remote.
		fake.Mend()
		other, _ := fake.AddImage("app", "2", []byte("other"))
		if _, err := r.Referrers(t.Context(), "app", other.Digest); err != nil {
			t.Errorf("%s: another subject: %v", name, err)
		}
	}
}

// Issue 12, point 11.
func TestAParentThatCouldNotAskSaysSo(t *testing.T) {
	fake, subject := attached(t, 2)
	r := remote(t, fake.URL(), nil)
	if list, err := r.Referrers(t.Context(), "app", subject.Digest); err != nil || list.Stale {
		t.Errorf("fresh: %+v, %v", list, err)
	}
	if c, err := r.Manifest(t.Context(), "app", "1"); err != nil || c.Stale {
		t.Errorf("a fresh tag: %+v, %v", c, err)
	}
	if list, err := r.Tags(t.Context(), "app", nil); err != nil || list.Stale {
		t.Errorf("fresh tags: %+v, %v", list, err)
	}
	for name, page := range map[string]upstreamtest.Fault{
		"the first page": upstreamtest.OnPage(1, upstreamtest.OutOfDate()), "the second": upstreamtest.OnPage(2, upstreamtest.OutOfDate()),
	} {
		fake.Mend()
		fake.Always("referrers", page)
		if list, err := r.Referrers(t.Context(), "app", subject.Digest); err != nil || !list.Stale || len(list.Manifests) != 2 {
			t.Errorf("%s: %+v, %v", name, list, err)
		}
	}
	fake.Mend()
	fake.Throughout(upstreamtest.OutOfDate())
	c, err := r.Manifest(t.Context(), "app", "1")
	if read(t, c, err); !c.Stale {
		t.Error("GET of a tag is fresh")
	}
	if _, err := r.Resolve(t.Context(), "app", "1"); !errors.Is(err, upstream.ErrStale) {
		t.Errorf("HEAD of a tag: %v", err)
	}
	if list, err := r.Tags(t.Context(), "app", nil); err != nil || !list.Stale || len(list.Tags) != 1 {
		t.Errorf("tags: %+v, %v", list, err)
	}
	if list, err := r.Tags(t.Context(), "absent", nil); !errors.Is(err, upstream.ErrStale) || errors.Is(err, upstream.ErrNotFound) {
		t.Errorf("tags of a repository that is absent: %+v, %v", list, err)
	}
	if d, err := r.Resolve(t.Context(), "app", subject.Digest.String()); err != nil || d.Digest != subject.Digest {
		t.Errorf("HEAD of a digest, which never changes: %v, %v", d, err)
	}
	// What is absent may be there by now: it is no news that it was not.
	if _, err := r.Resolve(t.Context(), "app", "2"); !errors.Is(err, upstream.ErrStale) || errors.Is(err, upstream.ErrNotFound) {
		t.Errorf("HEAD of a tag that is absent: %v", err)
	}
	if _, err := r.Manifest(t.Context(), "app", "2"); !errors.Is(err, upstream.ErrStale) || errors.Is(err, upstream.ErrNotFound) {
		t.Errorf("GET of a tag that is absent: %v", err)
	}
	unknown := digest.FromString("unknown")
	if _, err := r.Manifest(t.Context(), "app", unknown.String()); !errors.Is(err, upstream.ErrStale) || errors.Is(err, upstream.ErrNotFound) {
		t.Errorf("GET of a digest that is absent: %v", err)
	}
	fake.Always("referrers", upstreamtest.Status(404, "MANIFEST_UNKNOWN"))
	if _, err := r.Referrers(t.Context(), "app", unknown); !errors.Is(err, upstream.ErrStale) || errors.Is(err, upstream.ErrUnsupported) {
		t.Errorf("404 of the API: %v", err)
	}
}

// Issue 12, point 5 (decision 2, W44): a tag that carries referrers is there if
// GET says so.
func TestATagThatCarriesReferrersIsAskedForByGETWhereHEADFails(t *testing.T) {
	for name, fault := range map[string]upstreamtest.Fault{
		"404 of nobody": upstreamtest.Empty(404), "400": upstreamtest.Status(400, "UNSUPPORTED"), "401": upstreamtest.Status(401, "UNAUTHORIZED"),
		"403": upstreamtest.Status(403, "DENIED"), "405": upstreamtest.Empty(405), "501": upstreamtest.Empty(501),
		"403 of a storage": upstreamtest.StorageError(403, "SignatureDoesNotMatch"), "a page": upstreamtest.HTML(),
	} {
		fake, subject := attached(t, 1)
		list := fake.AddFallbackTag("app", subject.Digest)
		fake.Always("HEAD manifests", fault)
		d, err := remote(t, fake.URL(), nil).Resolve(t.Context(), "app", "sha256-"+subject.Digest.Encoded())
		if err != nil || d.Digest != list.Digest {
			t.Errorf("%s: %v, %v", name, d, err)
		}
	}
}

// Decision 1: what says, on the first page, that an endpoint has no API, as long
// as it has never sent an index. Anything else says nothing.
func TestWhatSaysThatAnEndpointLacksTheAPI(t *testing.T) {
	site := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(site.Close)
	for name, c := range map[string]struct {
		fault upstreamtest.Fault
		says  bool
		none  bool // where the API is known
	}{
		"404 page not found":                 {fault: upstreamtest.Said(404, "text/plain", "404 page not found\n"), says: true},
		"404 of a manifest":                  {fault: upstreamtest.Status(404, "MANIFEST_UNKNOWN"), says: true},
		"404 without a body":                 {fault: upstreamtest.Empty(404), says: true},
		"405":                                {fault: upstreamtest.Empty(405), says: true},
		"405 of a registry":                  {fault: upstreamtest.Status(405, "UNSUPPORTED"), says: true},
		"406":                                {fault: upstreamtest.Empty(406), says: true},
		"400 of a registry":                  {fault: upstreamtest.Status(400, "MANIFEST_INVALID"), says: true, none: true}, // W43
		"a redirect out of /v2/":             {fault: upstreamtest.Redirect(site.URL + "/login"), says: true},
		"a redirect to a page of its own":    {fault: upstreamtest.Redirect("/users/sign_in"), says: true},
		"a redirect within /v2/":             {fault: upstreamtest.Redirect("/v2/")},
		"a redirect to nowhere":              {fault: upstreamtest.Redirect("")},
		"400 of anybody":                     {fault: upstreamtest.Said(400, "text/plain", "Bad Request")},
		"404 with a page":                    {fault: upstreamtest.Page(404)},
		"405 with a page":                    {fault: upstreamtest.Page(405)},
		"406 with a page":                    {fault: upstreamtest.Page(406)},
		"400 with a page":                    {fault: upstreamtest.Page(400)},
		"a page":                             {fault: upstreamtest.HTML()},
		"410":                                {fault: upstreamtest.Status(410, "MANIFEST_UNKNOWN")},
		"414":                                {fault: upstreamtest.Status(414, "UNSUPPORTED")},
		"415":                                {fault: upstreamtest.Status(415, "UNSUPPORTED")},
		"429":                                {fault: upstreamtest.RateLimited(1)},
		"500":                                {fault: upstreamtest.Status(500, "UNKNOWN")},
		"501":                                {fault: upstreamtest.Status(501, "UNSUPPORTED")},
		"503":                                {fault: upstreamtest.Empty(503)},
		"204":                                {fault: upstreamtest.Empty(204)},
		"nothing at all":                     {fault: upstreamtest.Hangup()},
		"an object, of the type of an index": {fault: upstreamtest.Body(indexType, []byte("{}"))},
		"an index, of the type of text":      {fault: upstreamtest.Body("text/plain", []byte(`{"schemaVersion":2,"manifests":[]}`))},
		"404 of a parent that could not ask": {fault: upstreamtest.Combine(upstreamtest.OutOfDate(), upstreamtest.Status(404, "MANIFEST_UNKNOWN"))},
	} {
		fake, subject := attached(t, 0)
		short := upstreamtest.Short(subject.Digest.String())
		fake.Always("referrers app "+short, c.fault)
		r := remote(t, fake.URL(), nil)
		for n := range 2 {
			_, err := r.Referrers(t.Context(), "app", subject.Digest)
			if says := errors.Is(err, upstream.ErrUnsupported); says != c.says || !says && !isUnknown(err) {
				t.Errorf("%s, question %d: %v; want that it says so: %t", name, n+1, err, c.says)
			}
		}
		if _, err := r.Referrers(t.Context(), "app", digest.FromString("another")); err != nil { // an index
			t.Fatal(err)
		}
		switch _, err := r.Referrers(t.Context(), "app", subject.Digest); {
		case c.none && err != nil, !c.none && !isUnknown(err):
			t.Errorf("%s, where an index was seen: %v; want none: %t", name, err, c.none)
		}
	}
}

// Issue 12, point 6: what is learnt of one endpoint is not known of another, and
// what one question shows is not taken for another's answer.
func TestWhatIsLearntOfTheAPIIsLearntOfOneEndpoint(t *testing.T) {
	first, subject := attached(t, 1)
	second := upstreamtest.New(t)
	second.AddImage("app", "1", []byte("layer"))
	reach := func(fake *upstreamtest.Registry) upstream.Endpoint { return upstream.Retry(remote(t, fake.URL(), nil)) }
	atFirst, atSecond := reach(first), reach(second)
	first.Always("", upstreamtest.Empty(503))
	if list, err := atFirst.Referrers(t.Context(), "app", subject.Digest); !isUnknown(err) || len(list.Manifests) > 0 {
		t.Errorf("the first is away: %v, %v", list, err)
	}
	if _, err := atSecond.Referrers(t.Context(), "app", subject.Digest); !errors.Is(err, upstream.ErrNoAPI) {
		t.Errorf("the second: %v", err)
	}
	first.Mend()
	if list, err := atFirst.Referrers(t.Context(), "app", subject.Digest); err != nil || len(list.Manifests) != 1 {
		t.Errorf("the first is back: %v, %v", list, err)
	}
	// The second still has none, which says nothing of the first.
	first.Always("referrers", upstreamtest.Status(404, "MANIFEST_UNKNOWN"))
	if _, err := atFirst.Referrers(t.Context(), "app", subject.Digest); !isUnknown(err) {
		t.Errorf("the first, which has the API: %v", err)
	}
	if _, err := atSecond.Referrers(t.Context(), "app", subject.Digest); !errors.Is(err, upstream.ErrNoAPI) {
		t.Errorf("the second, which has not: %v", err)
	}
}

// RFC 7234, section 5.5: several warnings may stand in one header.
func TestWhichWarningsSayThatAnAnswerIsStale(t *testing.T) {
	for warnings, stale := range map[string]bool{
		`110 - "Response is Stale"`:                    true,
		`110 squid/6 "Response is stale"`:              true,
		`299 - "soon, 110 - gone", 110 - "stale"`:      true,
		`299 - "a \", b", 111 - "Revalidation failed"`: true,
		`112 - "Disconnected operation"`:               true,
		`299 - "110 images", 199 - "x"`:                false,
		`299 - "soon, 110 images"`:                     false,
		`113 - "Heuristic expiration"`:                 false,
		`214 - "Transformation applied"`:               false,
		`1100 - "?"`:                                   false,
		``:                                             false,
	} {
		fake, _ := attached(t, 0)
		fake.Throughout(upstreamtest.WithHeader("Warning", warnings))
		c, err := remote(t, fake.URL(), nil).Manifest(t.Context(), "app", "1")
		if read(t, c, err); c.Stale != stale {
			t.Errorf("%s: stale: %t", warnings, c.Stale)
		}
	}
}
