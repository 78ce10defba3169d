package proxy_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	pulling "github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// Issue 12, point 5: what HEAD says of a tag that carries referrers is no reason
// to say that there are none, or that nobody may know, where GET works.
func TestAReferrersTagIsReadWhereHEADFails(t *testing.T) {
	for name, fault := range map[string]upstreamtest.Fault{
		"404": upstreamtest.Empty(http.StatusNotFound), "401": upstreamtest.Status(http.StatusUnauthorized, "UNAUTHORIZED"),
		"403": upstreamtest.Status(http.StatusForbidden, "DENIED"), "405": upstreamtest.Empty(http.StatusMethodNotAllowed),
		"400": upstreamtest.Status(http.StatusBadRequest, "UNSUPPORTED"),
	} {
		for _, before := range []bool{true, false} { // was it listed before
			fake := upstreamtest.New(t)
			subject, _ := fake.AddImage("app", "1", []byte("layer"))
			signature := fake.AddReferrer("app", subject, "application/vnd.example", []byte("signature"))
			tag := referrers.TagOf(subject.Digest)
			fake.AddIndex("app", tag, signature)
			m := newMirror(t, fake, setup{once: true, options: func(o *pulling.Options) {
				o.Rules.ReferrersTTL, o.Rules.TagTTL = time.Nanosecond, time.Nanosecond
			}})
			listed := func(when string) {
				t.Helper()
				a := m.get("/v2/app/referrers/" + subject.Digest.String())
				if a.status != http.StatusOK || !strings.Contains(string(a.body), signature.Digest.String()) || a.header.Get("Warning") != "" {
					t.Errorf("%s of HEAD, %s: %d %s, Warning %q", name, when, a.status, a.body, a.header.Get("Warning"))
				}
			}
			if before {
				m.get("/v2/app/manifests/1")
				m.head("/v2/app/manifests/1") // so that its HEAD is known to work
				listed("before")
			}
			fake.Always("HEAD manifests app "+tag, fault)
			listed("then")
			listed("and again")
		}
	}
}
