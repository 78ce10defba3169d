package warm_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/warm"
	"github.com/entrepot/entrepot/upstream"
)

// What is here because another repository has it makes a pinned image complete
// only when the upstream has said that this repository has it too.
func TestAPinnedImageIsCompleteWhenTheUpstreamHasSaidThatItHasItsBlobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		layer := mirrortest.Bytes(1, 100<<10)
		other := warm.Repository{Upstream: "hub", Name: "other"}
		o.Image("other", "1", layer)
		_, blob := o.Image("app", "1", layer)
		m := mirrortest.New(t, o, func(opts *mirror.Options) { opts.Upstreams[0].Credentialed = true })
		m.PullImage(t, other, "1")
		mirrortest.Wait()
		line := "HEAD blob app " + mirrortest.Short(blob.Digest.String())
		o.Fail(line, upstream.ErrRefused)
		image := warm.Reference{Repository: mirrortest.App, Ref: "1"}
		if done, err := m.Pin(t.Context(), image); !errors.Is(err, warm.ErrIncomplete) {
			t.Errorf("while the upstream can't be asked: %+v, %v", done, err)
		}
		if m.Mirror.Retention.IsComplete(t.Context(), image, false) {
			t.Error("it counts as complete")
		}
		o.ClearFailures()
		o.Transcript()
		done, err := m.Pin(t.Context(), image)
		if err != nil || done.Blobs != 2 || done.Fetched != 0 {
			t.Errorf("%+v, %v", done, err)
		}
		if asked := mirrortest.Count(o.Transcript(), line); asked != 1 {
			t.Errorf("asked %d times", asked)
		}
		o.FailAll()
		m.PullImage(t, mirrortest.App, "1")
	})
}

// An image that a client has pulled is completed in the same way, whether the
// client asked for all of its blobs or had some of them already.
func TestTheQuestionIsAskedWhenAManifestIsCached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		layer := mirrortest.Bytes(1, 100<<10)
		other := warm.Repository{Upstream: "hub", Name: "other"}
		o.Image("other", "1", layer)
		_, blob := o.Image("app", "1", layer)
		m := mirrortest.New(t, o, func(opts *mirror.Options) { opts.Upstreams[0].Credentialed = true })
		m.Prefetch(t)
		m.PullImage(t, other, "1")
		time.Sleep(time.Hour)
		o.Transcript()
		if _, err := m.Manifest(t.Context(), mirrortest.App, "1"); err != nil {
			t.Fatal(err)
		}
		if missing := m.Missing(t); len(missing) != 2 {
			t.Errorf("config and layer are not missing before the upstream is asked: %q", missing)
		}
		time.Sleep(time.Hour)
		if asked := mirrortest.Count(o.Transcript(), "HEAD blob app "+mirrortest.Short(blob.Digest.String())); asked != 1 {
			t.Errorf("asked %d times", asked)
		}
		if missing := m.Missing(t); len(missing) != 0 {
			t.Errorf("missing: %q", missing)
		}
		o.FailAll()
		m.PullImage(t, mirrortest.App, "1")
	})
}
