package mirror_test

import (
	"context"
	"errors"
	"io"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/limits/panics"
	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/proxy/warm"
	"github.com/entrepot/entrepot/upstream"
)

// broken is a registry whose code panics while it asks for something.
type broken struct {
	*mirrortest.Origin
	now atomic.Value // a string: what it panics about
}

func (b *broken) about(what string) {
	if b.now.Load() == what {
		panic(what)
	}
}

func (b *broken) Resolve(ctx context.Context, repo, ref string) (mirrortest.Descriptor, error) {
	b.about("a tag")
	return b.Origin.Resolve(ctx, repo, ref)
}

func (b *broken) Manifest(ctx context.Context, repo, ref string) (upstream.Content, error) {
	b.about("a manifest")
	return b.Origin.Manifest(ctx, repo, ref)
}

func (b *broken) ResolveBlob(ctx context.Context, repo string, d mirrortest.Digest) (mirrortest.Descriptor, error) {
	b.about("a blob's size")
	return b.Origin.ResolveBlob(ctx, repo, d)
}

func (b *broken) Blob(ctx context.Context, repo string, d mirrortest.Digest, from, n int64) (upstream.Content, error) {
	b.about("a blob")
	c, err := b.Origin.Blob(ctx, repo, d, from, n)
	if err == nil {
		c.Body = &brokenBody{c.Body, b}
	}
	return c, err
}

func (b *broken) Referrers(ctx context.Context, repo string, subject mirrortest.Digest) (upstream.ReferrersList, error) {
	b.about("referrers")
	return b.Origin.Referrers(ctx, repo, subject)
}

func (b *broken) Tags(ctx context.Context, repo string, page url.Values) (upstream.TagList, error) {
	b.about("a list of tags")
	return b.Origin.Tags(ctx, repo, page)
}

type brokenBody struct {
	io.ReadCloser
	of *broken
}

func (b *brokenBody) Read(p []byte) (int, error) {
	b.of.about("a body")
	return b.ReadCloser.Read(p)
}

// caught counts panics that are caught, until the test ends.
func caught(t *testing.T) *atomic.Int64 {
	t.Helper()
	var n atomic.Int64
	panics.Handle(func(string, any, []byte) { n.Add(1) })
	t.Cleanup(func() { panics.Handle(nil) })
	return &n
}

// TestAPanicCostsOneQuestion (13.1): whoever asked gets an error, everybody else
// is served, and the same question is answered when the cause is gone.
func TestAPanicCostsOneQuestion(t *testing.T) {
	for _, about := range []string{"a tag", "a manifest", "a blob's size", "a blob", "a body", "referrers", "a list of tags"} {
		t.Run(about, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := caught(t)
				o, b := mirrortest.NewOrigin(), &broken{Origin: mirrortest.NewOrigin()}
				image, layer := b.Image("app", "1", mirrortest.Bytes(1, 100<<10))
				b.Attach(image, "application/vnd.example.signature")
				b.Put("app", "", nil, "tags")
				o.Image("app", "1", mirrortest.Bytes(2, 100<<10))
				m := mirrortest.New(t, o, func(opts *mirror.Options) {
					opts.Upstreams = append(opts.Upstreams, pull.Upstream{Name: "broken", Endpoints: []upstream.Endpoint{b}})
				})
				app := mirrortest.Repository{Upstream: "broken", Name: "app"}
				questions := map[string]func() error{
					"a tag":         func() error { _, err := m.Manifest(t.Context(), app, "1"); return err },
					"a manifest":    func() error { _, err := m.Manifest(t.Context(), app, image.Digest.String()); return err },
					"a blob's size": func() error { _, _, err := m.ResolveBlob(t.Context(), app, layer.Digest); return err },
					"a blob":        func() error { return m.Read(t.Context(), app, layer.Digest) },
					"a body":        func() error { return m.Read(t.Context(), app, layer.Digest) },
					"referrers":     func() error { _, err := m.Referrers(t.Context(), app, image.Digest); return err },
					"a list of tags": func() error {
						_, err := m.Tags(t.Context(), app, url.Values{})
						return err
					},
				}
				if about == "a tag" { // that is known, and asked for again
					m.PullImage(t, app, "1")
					time.Sleep(time.Hour)
				}
				b.now.Store(about)
				var clients sync.WaitGroup
				for range 3 {
					clients.Go(func() {
						if err := questions[about](); err == nil != (about == "a tag") {
							t.Errorf("answered with %v", err)
						}
					})
				}
				clients.Wait()
				if n.Load() == 0 {
					t.Error("no panic was told of")
				}
				m.PullImage(t, mirrortest.App, "1")
				b.now.Store("")
				time.Sleep(time.Hour)
				if err := questions[about](); err != nil {
					t.Errorf("when the cause is gone: %v", err)
				}
				m.PullImage(t, app, "1")
			})
		})
	}
}

// TestADigestOfAnUnknownAlgorithmCostsItsImage (13.1): go-digest panics when it
// is asked for a hash that it does not have.
func TestADigestOfAnUnknownAlgorithmCostsItsImage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := caught(t)
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, nil)
		const layer = "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
		const mediaType = "application/vnd.oci.image.manifest.v1+json"
		o.Put("app", "", []byte("{}"))
		o.Replace("app", layer, "", []byte("ten bytes."))
		image := o.Put("app", mediaType, []byte(`{"schemaVersion":2,"mediaType":"`+mediaType+`","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"`+layer+`","size":10}]}`), "1")
		defer m.Prefetch(t)()
		if got, err := m.Manifest(t.Context(), mirrortest.App, "1"); err != nil || got.Descriptor.Digest != image.Digest {
			t.Errorf("the manifest that names it: %v, %v", got.Descriptor, err)
		}
		if _, err := m.Pin(t.Context(), warm.Reference{Repository: mirrortest.App, Ref: "1"}); !errors.Is(err, warm.ErrIncomplete) {
			t.Errorf("the image was pinned: %v", err)
		}
		if err := m.Read(t.Context(), mirrortest.App, layer); err == nil {
			t.Error("the layer was sent, and nobody has verified it")
		}
		time.Sleep(time.Hour) // the pin is completed again, and prefetched
		if n.Load() > 0 {
			t.Errorf("%d panics", n.Load())
		}
		for _, line := range o.Transcript() {
			if line == "GET blob app "+layer {
				t.Error("the layer was requested, and nobody could verify it")
			}
		}
	})
}
