package proxy_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// Issue 12, point 21: Docker asks for referrers at each pull. A registry that
// limits or fails to list them still serves every image by its tag; and one that
// limits or fails pulls still lists them.
func TestReferrersAndPullsFailEachOnTheirOwn(t *testing.T) {
	for name, fault := range map[string]upstreamtest.Fault{
		"429 for an hour": upstreamtest.RateLimited(3600), "500": upstreamtest.Status(http.StatusInternalServerError, "UNKNOWN"),
	} {
		for _, fails := range []string{"referrers", "referrers tags", "pulls"} {
			t.Run(name+" of "+fails, func(t *testing.T) {
				t.Parallel()
				fake := upstreamtest.New(t, upstreamtest.WithReferrers())
				fake.Always("", upstreamtest.Where(func(req *http.Request, q upstreamtest.Request) bool {
					_, isReferrersTag := referrers.SubjectOf(q.Ref)
					switch fails {
					case "referrers":
						return q.Kind == "referrers"
					case "referrers tags":
						return q.Kind == "manifests" && isReferrersTag
					}
					return q.Kind == "manifests" && !isReferrersTag && req.Method == http.MethodGet
				}, fault))
				m := newMirror(t, fake, setup{once: true})
				const images = 7 // more than a breaker takes
				var subjects [images]string
				for n := range images {
					subject, _ := fake.AddImage(fmt.Sprint("app", n), "1", []byte("layer"))
					subjects[n] = subject.Digest.String()
				}
				listed := func(n int) errorResponse { return m.get(fmt.Sprintf("/v2/app%d/referrers/%s", n, subjects[n])) }
				pulled := func(n int) errorResponse { return m.get(fmt.Sprintf("/v2/app%d/manifests/1", n)) }
				failing, going := listed, pulled
				if fails == "pulls" {
					failing, going = pulled, listed
				}
				for n := range images {
					if a := failing(n); a.status == http.StatusOK && fails != "referrers tags" {
						t.Fatalf("%d: it does not fail", n)
					}
				}
				for n := range images {
					if a := going(n); a.status != http.StatusOK {
						t.Errorf("%d: %d %s", n, a.status, a.body)
					}
				}
			})
		}
	}
}
