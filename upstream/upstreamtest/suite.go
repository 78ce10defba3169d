package upstreamtest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/upstream"
)

// EndpointSuite tests what an [upstream.Endpoint] has beside a registry.
func EndpointSuite(t *testing.T, reach func(t *testing.T, fake *Registry) upstream.Endpoint) {
	t.Helper()
	layer := Bytes(1, 100<<10)
	t.Run("Referrers returns all pages of the API", func(t *testing.T) {
		fake := New(t, WithReferrers(), WithPages(2))
		subject, _ := fake.AddImage("app", "1", layer)
		want := map[digest.Digest]bool{}
		for i := range 5 {
			want[fake.AddReferrer("app", subject, "type/x", []byte{byte(i)}).Digest] = true
		}
		got, err := reach(t, fake).Referrers(t.Context(), "app", subject.Digest)
		if err != nil || len(got.Manifests) != len(want) {
			t.Fatalf("got %d, %v", len(got.Manifests), err)
		}
		for _, d := range got.Manifests {
			if !want[d.Digest] || d.MediaType != ocispec.MediaTypeImageManifest || d.ArtifactType != "type/x" {
				t.Errorf("got %+v", d)
			}
		}
	})
}

// Suite holds a Registry to its contract. reach returns the Registry under
// test over a registry that the suite scripts; it may stand behind decorators,
// or behind a whole mirror.
func Suite(t *testing.T, reach func(t *testing.T, fake *Registry) upstream.Registry) {
	ctx := context.Background()
	layer := Bytes(1, 300<<10)
	run := func(name string, test func(t *testing.T)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // they wait more than they work
			test(t)
		})
	}

	run("Resolve returns type, digest and size by tag and by digest", func(t *testing.T) {
		fake := New(t)
		want, _ := fake.AddImage("app", "1", layer)
		r := reach(t, fake)
		for _, ref := range []string{"1", want.Digest.String()} {
			got, err := r.Resolve(ctx, "app", ref)
			if err != nil || got.Digest != want.Digest || got.MediaType != want.MediaType || got.Size != want.Size {
				t.Errorf("%s: got %+v, want %+v, %v", ref, got, want, err)
			}
		}
	})

	run("Manifest returns the exact bytes and their type", func(t *testing.T) {
		fake := New(t)
		body := []byte(`{"schemaVersion":2,  "mediaType":"application/vnd.example.thing+json","odd":true}` + "\n")
		want := fake.AddManifest("app", "application/vnd.example.thing+json", body, "1")
		r := reach(t, fake)
		for _, ref := range []string{"1", want.Digest.String()} {
			c, err := r.Manifest(ctx, "app", ref)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(c.Body)
			c.Body.Close()
			if err != nil || string(got) != string(body) || c.MediaType != want.MediaType || c.Digest != want.Digest || c.Size != want.Size {
				t.Errorf("%s: got %q as %q, digest %s, size %d, %v", ref, got, c.MediaType, c.Digest, c.Size, err)
			}
		}
	})

	run("ResolveBlob returns the size and downloads nothing", func(t *testing.T) {
		fake := New(t)
		want := fake.AddBlob("app", layer)
		got, err := reach(t, fake).ResolveBlob(ctx, "app", want.Digest)
		if err != nil || got.Size != want.Size || fake.BlobBytes() != 0 {
			t.Errorf("got %+v and %d bytes, %v", got, fake.BlobBytes(), err)
		}
	})

	run("Blob returns the whole, the rest from an offset, and a piece", func(t *testing.T) {
		fake := New(t)
		_, m := fake.AddImage("app", "1", layer)
		d := m.Layers[0].Digest
		r := reach(t, fake)
		if c, err := r.Manifest(ctx, "app", "1"); err == nil {
			_, _ = io.Copy(io.Discard, c.Body)
			c.Body.Close()
		}
		for _, part := range []struct{ from, n, to int64 }{
			{0, -1, int64(len(layer))}, {1000, -1, int64(len(layer))}, {0, 10, 10}, {5000, 100, 5100}, {int64(len(layer)) - 1, -1, int64(len(layer))},
		} {
			c, err := r.Blob(ctx, "app", d, part.from, part.n)
			if err != nil {
				t.Fatalf("%+v: %v", part, err)
			}
			got, err := io.ReadAll(c.Body)
			c.Body.Close()
			if err != nil || string(got) != string(layer[part.from:part.to]) || c.From != part.from || c.Size != int64(len(layer)) {
				t.Errorf("%+v: %d bytes from %d of %d, %v", part, len(got), c.From, c.Size, err)
			}
		}
	})

	run("Tags returns pages that lead to one another", func(t *testing.T) {
		fake := New(t)
		for _, tag := range []string{"a", "b", "c"} {
			fake.AddImage("app", tag, layer)
		}
		r := reach(t, fake)
		first, err := r.Tags(ctx, "app", map[string][]string{"n": {"2"}})
		if err != nil || len(first.Tags) != 2 || first.Next == nil {
			t.Fatalf("the first page is %+v, %v", first, err)
		}
		second, err := r.Tags(ctx, "app", first.Next)
		if err != nil || len(second.Tags) != 1 || second.Tags[0] != "c" || second.Next != nil {
			t.Errorf("the second page is %+v, %v", second, err)
		}
	})

	run("errors have a meaning", func(t *testing.T) {
		for name, c := range map[string]struct {
			fault Fault
			want  error
		}{
			"404":           {Status(http.StatusNotFound, "MANIFEST_UNKNOWN"), upstream.ErrNotFound},
			"401":           {Status(http.StatusUnauthorized, "UNAUTHORIZED"), upstream.ErrDenied},
			"403":           {Status(http.StatusForbidden, "DENIED"), upstream.ErrDenied},
			"500":           {Status(http.StatusInternalServerError, "UNKNOWN"), upstream.ErrUnavailable},
			"HTML":          {HTML(), upstream.ErrUnavailable},
			"a broken line": {Hangup(), upstream.ErrUnavailable},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				fake := New(t)
				fake.AddImage("app", "1", layer)
				fake.Always("", c.fault)
				r := reach(t, fake)
				unknown := digest.FromString("unknown")
				proves := name == "HTML" // whoever reads content proves it: it may come with any type (W46)
				var all sync.WaitGroup   // each waits until it is asked again
				for method, ask := range map[string]func() error{
					"Resolve":            func() error { _, err := r.Resolve(ctx, "app", "1"); return err },
					"Manifest":           func() error { return opened(r.Manifest(ctx, "app", "1")) },
					"Manifest by digest": func() error { return opened(r.Manifest(ctx, "app", unknown.String())) },
					"ResolveBlob":        func() error { _, err := r.ResolveBlob(ctx, "app", unknown); return err },
					"Blob":               func() error { return opened(r.Blob(ctx, "app", unknown, 0, -1)) },
					"Tags":               func() error { _, err := r.Tags(ctx, "app", nil); return err },
				} {
					all.Go(func() {
						if err := ask(); !errors.Is(err, c.want) && !(proves && err == nil && method != "Resolve" && method != "Tags") {
							t.Errorf("%s: %v, want %v", method, err, c.want)
						}
					})
				}
				all.Wait()
			})
		}
	})

	run("a limited rate says when to come back", func(t *testing.T) {
		fake := New(t)
		fake.Always("", RateLimited(42))
		_, err := reach(t, fake).Manifest(ctx, "app", "1")
		var limited *upstream.RateLimitedError
		if !errors.As(err, &limited) || limited.RetryAfter.Seconds() < 40 || limited.RetryAfter.Seconds() > 42 {
			t.Errorf("got %v", err)
		}
	})

	run("an unplugged registry is unavailable", func(t *testing.T) {
		fake := New(t)
		r := reach(t, fake)
		fake.Stop()
		if _, err := r.Manifest(ctx, "app", "1"); !errors.Is(err, upstream.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
	})

	run("a body that ends early does not end in io.EOF", func(t *testing.T) {
		fake := New(t)
		want := fake.AddBlob("app", layer)
		fake.Always("GET blobs", CutAfter(1000))
		c, err := reach(t, fake).Blob(ctx, "app", want.Digest, 0, -1)
		if err == nil {
			_, err = io.ReadAll(c.Body)
			c.Body.Close()
		}
		if !errors.Is(err, upstream.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
	})

	run("methods may be called at the same time", func(t *testing.T) {
		fake := New(t)
		want, m := fake.AddImage("app", "1", layer)
		r := reach(t, fake)
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if got, err := r.Resolve(ctx, "app", "1"); err != nil || got.Digest != want.Digest {
					t.Errorf("Resolve: %v, %v", got.Digest, err)
				}
				c, err := r.Blob(ctx, "app", m.Layers[0].Digest, 0, -1)
				if err != nil {
					t.Errorf("Blob: %v", err)
					return
				}
				defer c.Body.Close()
				if got, err := io.ReadAll(c.Body); err != nil || len(got) != len(layer) {
					t.Errorf("Blob: %d bytes, %v", len(got), err)
				}
			})
		}
		all.Wait()
	})
}

// opened closes what an answer opened.
func opened(c upstream.Content, err error) error {
	if err == nil {
		c.Body.Close()
	}
	return err
}
