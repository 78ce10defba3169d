package pull_test

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/upstream"
)

func TestANewManifestOverridesARememberedNotFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, nil)
		content := mirrortest.Bytes(1, 10<<10)
		if err := m.Read(t.Context(), mirrortest.App, mirrortest.IndexAlgorithm.FromBytes(content)); !errors.Is(err, upstream.ErrNotFound) {
			t.Errorf("before it is there: %v", err)
		}
		o.Image("app", "1", content)
		m.PullImage(t, mirrortest.App, "1")
	})
}

func TestACachedBlobThatCannotBeOpenedIsDownloadedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		var broken brokenOpen
		m := mirrortest.New(t, o, func(opts *mirror.Options) {
			broken = brokenOpen{opts.Blobs, new(bool)}
			opts.Blobs = broken
		})
		_, layer := o.Image("app", "1", mirrortest.Bytes(1, 100<<10))
		m.PullImage(t, mirrortest.App, "1")
		mirrortest.Wait()
		*broken.broken = true
		o.Transcript()
		if err := m.Read(t.Context(), mirrortest.App, layer.Digest); err != nil {
			t.Error(err)
		}
		mirrortest.WantTranscript(t, o, "GET blob app "+mirrortest.Short(layer.Digest.String()))
	})
}

// brokenOpen is a blob store whose blobs exist but cannot be opened, as when
// the process has too many open files.
type brokenOpen struct {
	cache.Blobs
	broken *bool
}

func (b brokenOpen) Open(ctx context.Context, d pull.Digest) (cache.PublishedBlob, error) {
	if *b.broken {
		return nil, fmt.Errorf("open %s: %w", d, syscall.EMFILE)
	}
	return b.Blobs.Open(ctx, d)
}
