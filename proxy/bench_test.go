package proxy

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/pull"
)

// script is a Puller whose answers a test writes down.
type script struct {
	manifest    func(context.Context, pull.Repository, string) (pull.Manifest, error)
	resolveBlob func(context.Context, pull.Repository, digest.Digest) (ocispec.Descriptor, pull.Outcome, error)
	blob        func(context.Context, pull.Repository, digest.Digest) (pull.Blob, error)
	tags        func(context.Context, pull.Repository, url.Values) (pull.Tags, error)
	referrers   func(context.Context, pull.Repository, digest.Digest) (pull.Referrers, error)
}

func (s script) Manifest(ctx context.Context, repo pull.Repository, ref string) (pull.Manifest, error) {
	return s.manifest(ctx, repo, ref)
}

func (s script) ResolveBlob(ctx context.Context, repo pull.Repository, d digest.Digest) (ocispec.Descriptor, pull.Outcome, error) {
	return s.resolveBlob(ctx, repo, d)
}

func (s script) Blob(ctx context.Context, repo pull.Repository, d digest.Digest) (pull.Blob, error) {
	return s.blob(ctx, repo, d)
}

func (s script) Tags(ctx context.Context, repo pull.Repository, page url.Values) (pull.Tags, error) {
	return s.tags(ctx, repo, page)
}

func (s script) Referrers(ctx context.Context, repo pull.Repository, subject digest.Digest) (pull.Referrers, error) {
	return s.referrers(ctx, repo, subject)
}

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
	metrics, err := NewMetrics()
	if err != nil {
		b.Fatal(err)
	}
	s := New(Options{
		Upstreams: []Upstream{{Name: "docker.io", Default: true}, {Name: "ghcr.io"}},
		Logger:    slog.New(slog.DiscardHandler), Metrics: metrics,
		Puller: script{manifest: func(context.Context, pull.Repository, string) (pull.Manifest, error) {
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
