package pull_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/pull"
)

// opens counts what is opened to be read.
type opens struct {
	cache.Blobs
	n int
}

func (o *opens) Open(ctx context.Context, d cache.Digest) (cache.PublishedBlob, error) {
	o.n++
	return o.Blobs.Open(ctx, d)
}

// A large manifest that is not in memory is described without its body, by the
// digest and by the tag, and after it is gone from the disk, not at all.
func TestAHeadOfALargeManifestReadsNoBody(t *testing.T) {
	for name, size := range map[string]int{"large": 100 << 10, "small": 10 << 10} {
		synctest.Test(t, func(t *testing.T) {
			o := mirrortest.NewOrigin()
			raw := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"%s","manifests":[],"annotations":{"a":"%s"}}`, ocispec.MediaTypeImageIndex, strings.Repeat("x", size))
			desc := o.Put("app", ocispec.MediaTypeImageIndex, raw, "1")
			before := mirrortest.New(t, o, nil)
			if _, err := before.Manifest(t.Context(), mirrortest.App, "1"); err != nil {
				t.Fatal(err)
			}
			mirrortest.Wait()
			stored := &opens{Blobs: before.Blobs}
			m := mirrortest.New(t, o, func(opts *mirror.Options) { opts.Blobs, opts.Records = stored, before.Records })
			mirrortest.Wait()
			o.FailAll()
			stored.n = 0
			for _, ref := range []string{"1", desc.Digest.String()} {
				got, err := m.DescribeFor(t.Context(), mirrortest.App, ref, []string{ocispec.MediaTypeImageIndex})
				if err != nil || got.Descriptor.Digest != desc.Digest || got.Descriptor.Size != int64(len(raw)) || got.Descriptor.MediaType != ocispec.MediaTypeImageIndex || got.Outcome != pull.Hit {
					t.Errorf("%s, %s: %+v %s, %v", name, ref, got.Descriptor, got.Outcome, err)
				}
			}
			if want := map[string]int{"small": 2}[name]; stored.n != want {
				t.Errorf("%s: its body was read %d times, want %d", name, stored.n, want)
			}
			if got, err := m.Manifest(t.Context(), mirrortest.App, "1"); err != nil || !bytes.Equal(got.Bytes, raw) {
				t.Errorf("%s, GET: %d bytes, %v", name, len(got.Bytes), err)
			}
			gone := mirrortest.New(t, o, func(opts *mirror.Options) { opts.Blobs, opts.Records = mirrortest.New(t, o, nil).Blobs, before.Records })
			if got, err := gone.DescribeFor(t.Context(), mirrortest.App, "1", nil); err == nil {
				t.Errorf("%s, which is not there any more: %+v", name, got.Descriptor)
			}
		})
	}
}
