package proxy_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	pulling "github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// A row of the table of referrers one by one: what an upstream does, what comes
// of it when the image's referrers are asked for, and what when it has mended.
type referringRow struct {
	upstream string
	// registries are the options of each endpoint; nil is one without the API.
	registries [][]upstreamtest.Option
	// chain puts another entrepot between the mirror and the registry.
	chain   bool
	options func(*pulling.Options)
	// story is what happens before the question.
	story func(w *referringWorld)
	// header is sent with the question.
	header []string
	// What the client sees by the API and by the tag. "" is all of them, known.
	api, tag string
	// later is how long after the end of all faults it asks again; 0 is a minute.
	later time.Duration
	// What it sees then, where that is not all of them, known.
	laterAPI, laterTag string
	// most is the most requests that the registries may get for the question.
	most int
}

var (
	withAPI    = []upstreamtest.Option{upstreamtest.WithReferrers()}
	withoutAPI = []upstreamtest.Option(nil)
)

func (r referringRow) endpoints() [][]upstreamtest.Option {
	if r.registries == nil {
		return [][]upstreamtest.Option{withoutAPI}
	}
	return r.registries
}

func one(options ...upstreamtest.Option) [][]upstreamtest.Option {
	return [][]upstreamtest.Option{options}
}

func referringRows() []referringRow {
	return slices.Concat(pagesOfReferrers(), bodiesOfReferrers(), childrenOfReferrers(), endpointsOfReferrers(), agesOfReferrers(), keptReferrers(), describedReferrers(), costlyReferrers())
}

func referringFaults(t *testing.T) string {
	var lines faultLines
	t.Run("rows", func(t *testing.T) {
		for i, row := range referringRows() {
			t.Run(row.upstream, func(t *testing.T) {
				t.Parallel()
				sees := map[string][2]string{}
				for _, by := range []string{byAPI, byTag} {
					dir := t.TempDir()
					t.Run(by, func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) { sees[by] = runReferring(t, dir, row, by) })
					})
				}
				lines.add(i, row.upstream, sees[byAPI][0], sees[byTag][0], sees[byAPI][1], sees[byTag][1])
			})
		}
	})
	return "## Referrers, one by one\n\nWhat hangs on an image is asked for by the Referrers API and by the tag `sha256-<hex>`, with all waits as they are by default: once while the upstream " +
		"does what the row says, and once when it has mended. A known list is complete. A 404 of the tag is the upstream's own, and its warning says that more may be found by the API.\n\n" +
		lines.table("the upstream", "by the API", "by the tag", "by the API, once it has mended", "by the tag, once it has mended")
}

func runReferring(t *testing.T, dir string, row referringRow, by string) (sees [2]string) {
	w := newReferringWorld(t, dir, row)
	row.story(w)
	w.asked()
	sees[0] = w.ask(by, row.header...)
	asked := w.asked()
	if row.most > 0 && asked > row.most {
		t.Errorf("the registries got %d requests, at most %d are bearable", asked, row.most)
	}
	w.mend()
	later := row.later
	if later == 0 {
		later = time.Minute
	}
	time.Sleep(later)
	sees[1] = w.ask(by)
	if status, _, body := w.get("/v2/app/manifests/1"); status != 200 {
		t.Errorf("the image itself: %d %s", status, body)
	}
	all := fmt.Sprintf("known, %d of %d", len(w.hangs), len(w.hangs))
	want := [2]string{row.api, row.laterAPI}
	if by == byTag {
		want = [2]string{row.tag, row.laterTag}
	}
	for i := range want {
		if want[i] == "" {
			want[i] = all
		}
		if sees[i] != want[i] {
			t.Errorf("%s: %q, want %q", [...]string{"at once", "once it has mended"}[i], sees[i], want[i])
		}
		if strings.HasPrefix(sees[i], "known") && !strings.HasPrefix(sees[i], all) && !strings.HasPrefix(want[i], "known") {
			t.Errorf("A SHORT LIST IS TOLD AS THE WHOLE: %q", sees[i])
		}
	}
	return sees
}
