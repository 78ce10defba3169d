package proxy_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

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

// HEAD of the tag is answered as GET is: what the upstream has under it is not all
// there is, also where the upstream limits requests.
func TestHEADOfAReferrersTagDoesNotAnswerWithTheUpstreamsOwn(t *testing.T) {
	fake := upstreamtest.New(t, upstreamtest.WithReferrers())
	subject, _ := fake.AddImage("app", "1", []byte("layer"))
	tag := referrers.TagOf(subject.Digest)
	fake.AddManifest("app", ocispec.MediaTypeImageIndex, fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":"blake3:%064x","size":1}]}`, ocispec.MediaTypeImageManifest, 7), tag)
	m := newMirror(t, fake, setup{once: true})
	fake.Always("referrers", upstreamtest.RateLimited(20))
	get, head := m.get("/v2/app/manifests/"+tag), m.head("/v2/app/manifests/"+tag)
	if get.status != http.StatusTooManyRequests || head.status != get.status {
		t.Errorf("GET %d %s, HEAD %d %v", get.status, get.body, head.status, head.header)
	}
}

// Issue 12, points 8 and 20: the tag is answered with what is known of the
// referrers, and a registry that refuses the tag has a list by its API.
func TestATagThatIsRefusedIsAnsweredWithTheKnownList(t *testing.T) {
	fake := upstreamtest.New(t, upstreamtest.WithReferrers())
	subject, _ := fake.AddImage("app", "1", []byte("layer"))
	signature := fake.AddReferrer("app", subject, "application/vnd.example", []byte("signature"))
	tag := referrers.TagOf(subject.Digest)
	m := newMirror(t, fake, setup{once: true, options: func(o *pulling.Options) { o.Rules.ReferrersTTL = time.Nanosecond }})
	var known ocispec.Index // as the API is answered
	if err := json.Unmarshal(m.get("/v2/app/referrers/"+subject.Digest.String()).body, &known); err != nil {
		t.Fatal(err)
	}
	fake.AddFallbackTag("app", subject.Digest, known.Manifests...)
	is := func(when string) {
		t.Helper()
		for _, path := range []string{"referrers/" + subject.Digest.String(), "manifests/" + tag} {
			a := m.get("/v2/app/" + path)
			if a.status != http.StatusOK || !strings.Contains(string(a.body), signature.Digest.String()) || a.header.Get("Warning") != "" {
				t.Errorf("%s, %s: %d %s, Warning %q", when, path, a.status, a.body, a.header.Get("Warning"))
			}
		}
	}
	is("it is there")
	fake.Always("manifests app "+tag, upstreamtest.Status(http.StatusBadRequest, "TAG_INVALID"))
	is("it is refused")
}
