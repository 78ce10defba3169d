package proxy_test

import (
	"encoding/json"
	"net/http"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	pulling "github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/referrers"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// W58: Docker asks at every pull for the referrers of the image's attestations,
// and fails the pull where nobody answers. That is the one subject of which
// "nothing" is said where nothing is known.
func TestThatNothingIsKnownOfAnAttestationFailsNoPull(t *testing.T) {
	fake := upstreamtest.New(t)
	image, _ := fake.AddImage("app", "", []byte("layer"))
	attestation, _ := fake.AddImage("app", "", []byte("provenance"))
	attestation.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	attestation.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": image.Digest.String()}
	fake.AddIndex("app", "1", image, attestation)
	s := setup{dir: t.TempDir()}
	first := newMirror(t, fake, s)
	if a := first.get("/v2/app/manifests/1"); a.status != http.StatusOK {
		t.Fatalf("the index: %d", a.status)
	}
	first.stop()
	fake.Stop()
	for name, offline := range map[string]bool{"upstream gone": false, "offline": true} {
		t.Run(name, func(t *testing.T) {
			s.options = func(o *pulling.Options) { o.Rules.Offline = offline }
			m := newMirror(t, fake, s)
			a := m.get("/v2/app/referrers/" + attestation.Digest.String())
			var index ocispec.Index
			if err := json.Unmarshal(a.body, &index); err != nil || a.status != http.StatusOK || index.Manifests == nil || len(index.Manifests) != 0 ||
				a.header.Get("Warning") != `110 - "Response is Stale"` || a.header.Get("Content-Type") != ocispec.MediaTypeImageIndex {
				t.Errorf("of the attestation: %d %s %v", a.status, a.body, a.header)
			}
			// Never of an image: it would look unsigned.
			if a := m.get("/v2/app/referrers/" + image.Digest.String()); a.status != http.StatusServiceUnavailable || a.code != "UNAVAILABLE" {
				t.Errorf("of the image: %d %s", a.status, a.body)
			}
			m.stop()
		})
	}
}

// What one source lists is told though another can't be asked; that it lists
// none of a kind is no word about that kind.
func TestAFilterOverAPartOfTheListClaimsNoAbsence(t *testing.T) {
	fake := upstreamtest.New(t)
	image, _ := fake.AddImage("app", "1", []byte("layer"))
	signature := fake.AddReferrer("app", image, "application/vnd.example.signature", []byte("sig"))
	fake.AddIndex("app", referrers.TagOf(image.Digest), signature)
	fake.Always("GET referrers", upstreamtest.Status(http.StatusBadGateway, "UNKNOWN"))
	m := newMirror(t, fake, setup{once: true})
	path := "/v2/app/referrers/" + image.Digest.String()
	for filter, status := range map[string]int{
		"": http.StatusOK, "?artifactType=application/vnd.example.signature": http.StatusOK, "?artifactType=application/vnd.example.sbom": http.StatusServiceUnavailable,
	} {
		a := m.get(path + filter)
		if a.status != status || status == http.StatusOK && a.header.Get("Warning") != `110 - "Response is Stale"` {
			t.Errorf("%q: %d, warning %q: %s", filter, a.status, a.header.Get("Warning"), a.body)
		}
	}
	// On the tag's own route its own 404 is passed on: a pull goes before.
	fake.Remove("app", referrers.TagOf(image.Digest))
	other, _ := fake.AddImage("app", "2", []byte("other"))
	a := m.get("/v2/app/manifests/" + referrers.TagOf(other.Digest))
	if a.status != http.StatusNotFound || a.header.Get("Warning") == "" {
		t.Errorf("the tag of another: %d, warning %q", a.status, a.header.Get("Warning"))
	}
	if a := m.get("/v2/app/referrers/" + other.Digest.String()); a.status != http.StatusServiceUnavailable {
		t.Errorf("the API for another: %d %s", a.status, a.body)
	}
}
