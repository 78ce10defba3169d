package upstreamtest

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// pages follows plain Links, n of them at most.
func pages(t *testing.T, fake *Registry, path string, n int) (all []*http.Response, entries int) {
	t.Helper()
	for path != "" && len(all) < n {
		resp, body := ask(t, http.MethodGet, fake.URL()+path)
		all = append(all, resp)
		var index ocispec.Index
		if json.Unmarshal([]byte(body), &index) == nil {
			entries += len(index.Manifests)
		}
		_, rest, _ := strings.Cut(resp.Header.Get("Link"), "<")
		path, _, _ = strings.Cut(rest, ">")
	}
	return all, entries
}

func TestPagesOfReferrersMeetFaults(t *testing.T) {
	for name, c := range map[string]struct {
		fault Fault
		links []string // of the pages, in order
		codes []int
		most  int
	}{
		"the second page": {fault: OnPage(2, Status(http.StatusNotFound, "MANIFEST_UNKNOWN")), codes: []int{200, 404}},
		"from the second": {fault: FromPage(2, OutOfDate()), codes: []int{200, 200, 200}},
		"all but two":     {fault: Later(2, RateLimited(5)), codes: []int{200, 200, 429}},
		"itself":          {fault: LinkToItself(), codes: []int{200, 200, 200, 200}, links: []string{"", "", "", ""}, most: 4},
		"a circle":        {fault: LinkInACircle(), codes: []int{200, 200, 200, 200, 200}, links: []string{"page=2", "page=3", "", "page=2", "page=3"}, most: 5},
		"no end":          {fault: LinkWithoutEnd(), codes: []int{200, 200, 200}, links: []string{"page=2", "page=3", "page=4"}, most: 3},
	} {
		fake := New(t, WithReferrers(), WithPages(1))
		subject, _ := fake.AddImage("app", "1", []byte("layer"))
		for _, payload := range []string{"one", "two", "three"} {
			fake.AddReferrer("app", subject, "type/x", []byte(payload))
		}
		fake.Always("referrers", c.fault)
		all, _ := pages(t, fake, "/v2/app/referrers/"+subject.Digest.String(), max(c.most, 3))
		if len(all) != len(c.codes) {
			t.Errorf("%s: %d pages", name, len(all))
			continue
		}
		for i, resp := range all {
			if resp.StatusCode != c.codes[i] || c.links != nil && !strings.HasSuffix(strings.TrimSuffix(resp.Header.Get("Link"), `>; rel="next"`), c.links[i]) {
				t.Errorf("%s: page %d is %d with Link %q", name, i+1, resp.StatusCode, resp.Header.Get("Link"))
			}
			if stale := resp.Header.Get("Warning") != ""; name == "from the second" && stale != (i > 0) {
				t.Errorf("%s: page %d, stale: %t", name, i+1, stale)
			}
		}
	}
}

func TestLinksAreWrittenInOtherWays(t *testing.T) {
	for want, fault := range map[string]Fault{
		`</v2/app/referrers/D?Q>; rel="last next"`:                             LinkWith(`<%s>; rel="last next"`),
		`/v2/app/referrers/D?Q; rel="next"`:                                    LinkWith(`%s; rel="next"`),
		`<https://other:5000/v2/app/referrers/D?Q>; rel="next"`:                LinkOn("https://other:5000"),
		`</first>; rel="first"` + "\n" + `</v2/app/referrers/D?Q>; rel="next"`: LinkWith(`</first>; rel="first"`, `<%s>; rel="next"`),
	} {
		fake := New(t, WithReferrers(), WithPages(1))
		subject, _ := fake.AddImage("app", "1", []byte("layer"))
		fake.AddReferrer("app", subject, "type/x", []byte("one"))
		fake.AddReferrer("app", subject, "type/x", []byte("two"))
		fake.Always("referrers", fault)
		resp, _ := ask(t, http.MethodGet, fake.URL()+"/v2/app/referrers/"+subject.Digest.String())
		got := strings.ReplaceAll(strings.Join(resp.Header.Values("Link"), "\n"), subject.Digest.String(), "D")
		before, rest, _ := strings.Cut(got, "?")
		end := strings.IndexAny(rest, ">;")
		if end < 0 || before+"?Q"+rest[end:] != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
