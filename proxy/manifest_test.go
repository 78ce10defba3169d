package proxy

import (
	"bytes"
	"net/http"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/pull"
)

// manifests is a script that has one manifest, of any media type.
func manifests(mediaType string, b []byte, change func(*pull.Manifest)) script {
	return script{manifest: func(pull.Repository, string) (pull.Manifest, error) {
		m := pull.Manifest{
			Descriptor: ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))},
			Bytes:      b, Outcome: pull.Hit,
		}
		if change != nil {
			change(&m)
		}
		return m, nil
	}}
}

func TestW1W2W10ManifestsGoOutAsTheyAre(t *testing.T) {
	large := slices.Concat([]byte(`{"a":"`), bytes.Repeat([]byte("x"), 4_393_216-8), []byte(`"}`)) // W8
	for _, mediaType := range []string{
		ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex,
		"application/vnd.docker.distribution.manifest.v1+prettyjws",
		"application/vnd.oci.artifact.manifest.v1+json",
		"application/vnd.cncf.oras.artifact.manifest.v1+json",
	} {
		for name, b := range map[string][]byte{"small": []byte("{\n \"schemaVersion\": 2 }\n"), "as large as clients take": large} {
			t.Run(mediaType+", "+name, func(t *testing.T) {
				f := newFace(t, manifests(mediaType, b, nil))
				for _, method := range []string{http.MethodGet, http.MethodHead} {
					got := f.do(method, "/v2/app/manifests/1", "Accept", "application/json", "Accept-Encoding", "zstd, gzip, deflate")
					if got.status != http.StatusOK || got.length != int64(len(b)) || got.cut != nil {
						t.Errorf("%s: %d with %d bytes, %v", method, got.status, got.length, got.cut)
					}
					if method == http.MethodGet && !bytes.Equal(got.body, b) {
						t.Error("other bytes")
					}
					got.wantHeader(t, "Content-Type", mediaType, "Docker-Content-Digest", digest.FromBytes(b).String(),
						"Etag", `"`+digest.FromBytes(b).String()+`"`, "Content-Encoding", "", "Warning", "", "OCI-Namespace", "")
				}
			})
		}
	}
}

func TestManifestThatTheClientHasIsNotSentAgain(t *testing.T) {
	b := []byte("{}")
	etag := `"` + digest.FromBytes(b).String() + `"`
	f := newFace(t, manifests(ocispec.MediaTypeImageManifest, b, nil))
	for header, want := range map[string]int{
		etag: 304, "W/" + etag: 304, `"other", ` + etag: 304, "*": 304,
		`"other"`: 200, digest.FromBytes(b).String(): 200, "": 200,
	} {
		got := f.do(http.MethodGet, "/v2/app/manifests/1", "If-None-Match", header)
		if got.status != want || want == 304 && len(got.body) > 0 {
			t.Errorf("%s: %d", header, got.status)
		}
		got.wantHeader(t, "Etag", etag)
	}
}

func TestStaleManifestsSaySo(t *testing.T) {
	f := newFace(t, manifests(ocispec.MediaTypeImageManifest, []byte("{}"), func(m *pull.Manifest) {
		m.Stale, m.Outcome, m.Warnings = true, pull.Stale, []string{`299 - "this registry closes"`}
	}))
	got := f.do(http.MethodGet, "/v2/app/manifests/1")
	want := []string{`110 - "Response is Stale"`, `299 - "this registry closes"`}
	if got.status != http.StatusOK || !slices.Equal(got.header.Values("Warning"), want) {
		t.Errorf("%d, %q", got.status, got.header.Values("Warning"))
	}
}

func TestW12NamespaceIsEchoedWhereItChose(t *testing.T) {
	f := newFace(t, manifests(ocispec.MediaTypeImageManifest, []byte("{}"), nil))
	for target, want := range map[string]string{
		"/v2/app/manifests/1?ns=ghcr.io":    "ghcr.io",
		"/v2/ghcr.io/app/manifests/1":       "",
		"/v2/app/manifests/.bad?ns=ghcr.io": "",
	} {
		f.do(http.MethodGet, target).wantHeader(t, "OCI-Namespace", want)
	}
	for target, want := range map[string]string{"/v2/app/manifests/1?ns=docker.io": "docker.io", "/v2/app/manifests/1": ""} {
		f.do(http.MethodGet, target, "Host", "ghcr.mirror.test").wantHeader(t, "OCI-Namespace", want)
	}
}

func TestW5PingNeverChallenges(t *testing.T) {
	f := newFace(t, script{})
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		got := f.do(method, "/v2/", "Authorization", "Bearer something")
		if got.status != http.StatusOK {
			t.Errorf("%s: %d", method, got.status)
		}
		got.wantHeader(t, "Www-Authenticate", "", "Docker-Distribution-Api-Version", "registry/2.0", "Content-Type", "application/json")
	}
}
