package proxy

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
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

// BenchmarkRanges is what the face itself costs for many ranges of a blob that
// is here: for 1,024 of them sixteen times what it costs for 64.
func BenchmarkRanges(b *testing.B) {
	c := &content{bytes: numbered(1 << 20)}
	path := "/v2/app/blobs/" + c.Digest().String()
	s := New(Options{Upstreams: upstreamsForTests(), Logger: quiet(), Puller: blobs(c)})
	for _, n := range []int{64, maxRanges} {
		for name, header := range map[string]string{
			"holes":       strideRanges(n, 1000, 100),
			"overlapping": strideRanges(n, 100, 200),
			"the same":    "bytes=0-" + strings.Repeat(",0-", n-1), // are joined
		} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				req := httptest.NewRequest(http.MethodGet, path, nil)
				b.ReportAllocs()
				for b.Loop() {
					req.Header.Set("Range", header)
					s.ServeHTTP(nowhere{http.Header{}}, req)
				}
			})
		}
	}
}

// strideRanges are n ranges of so many bytes, whose starts are stride apart.
func strideRanges(n, stride, length int) string {
	var list strings.Builder
	for i := range n {
		fmt.Fprintf(&list, ",%d-%d", i*stride, i*stride+length-1)
	}
	return "bytes=" + list.String()[1:]
}
