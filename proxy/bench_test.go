package proxy

import (
	"net/http"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/admin"
	"github.com/entrepot/entrepot/proxy/pull"
)

// nowhere is a ResponseWriter that costs nothing.
type nowhere struct{ header http.Header }

func (n nowhere) Header() http.Header         { return n.header }
func (n nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (n nowhere) WriteHeader(int)             {}

// BenchmarkManifestHit is what the face itself costs for a warm manifest: the
// route, the headers, the count and the line in the log.
func BenchmarkManifestHit(b *testing.B) {
	content := []byte(`{"schemaVersion":2}`)
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(content), Size: int64(len(content))}
	metrics, err := admin.NewMetrics()
	if err != nil {
		b.Fatal(err)
	}
	s := New(Options{
		Upstreams: []Upstream{{Name: "docker.io", Default: true}, {Name: "ghcr.io"}},
		Logger:    quiet(), Observer: metrics,
		Puller: script{manifest: func(pull.Repository, string) (pull.Manifest, error) {
			return pull.Manifest{Descriptor: desc, Bytes: content, Outcome: pull.Hit}, nil
		}},
	})
	req, err := http.NewRequest(http.MethodGet, "/v2/library/alpine/manifests/"+desc.Digest.String()+"?ns=docker.io", nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		s.ServeHTTP(nowhere{http.Header{}}, req)
	}
}
