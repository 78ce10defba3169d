package retention_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/retention"
)

// Images that share layers, platforms and signatures come and go under a bound:
// of each one that is left nothing is missing, with the upstream gone.
func TestWhatIsLeftAfterEvictionIsWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, func(opts *mirror.Options) {
			opts.Bounds.MaxBytes = 600 << 10
			opts.Rules.TagTTL, opts.Rules.ReferrersTTL = 1000*time.Hour, 1000*time.Hour
			opts.Rules.NegativeTTL = 1000 * time.Hour
		})
		const images = 12
		roots := map[string]retention.Descriptor{}
		for i := range images {
			// Each shares a platform with the one before, and a layer with the one
			// before that.
			tag := fmt.Sprint(i)
			platforms := []retention.Descriptor{}
			for _, seed := range []int{i, i + 1} {
				p, _ := o.Image("app", fmt.Sprintf("platform-%d", seed), mirrortest.Bytes(byte(seed), 60<<10))
				o.Remove("app", fmt.Sprintf("platform-%d", seed))
				platforms = append(platforms, p)
			}
			other, _ := o.Image("app", fmt.Sprintf("other-%d", i), mirrortest.Bytes(byte(max(i-2, 0)), 60<<10))
			o.Remove("app", fmt.Sprintf("other-%d", i))
			raw, err := json.Marshal(ocispec.Index{MediaType: mirrortest.IndexType, Manifests: append(platforms, other)})
			if err != nil {
				t.Fatal(err)
			}
			roots[tag] = o.Put("app", mirrortest.IndexType, raw, tag)
			signature := o.Attach(roots[tag], "signature of "+tag)
			o.List(roots[tag].Digest, signature)
		}
		for _, i := range []int{0, 1, 2, 3, 0, 4, 5, 6, 2, 7, 8, 9, 3, 10, 11, 5} {
			tag := fmt.Sprint(i)
			m.PullImage(t, mirrortest.App, tag)
			if _, err := m.Referrers(t.Context(), mirrortest.App, roots[tag].Digest); err != nil {
				t.Fatal(err)
			}
			if err := m.Read(t.Context(), mirrortest.App, ocispec.DescriptorEmptyJSON.Digest); err != nil { // what a signature names
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			mirrortest.Wait()
		}
		if kept := m.BytesOnDisk(t); kept > 600<<10 {
			t.Errorf("%d bytes are kept", kept)
		}
		// By the records: what a manifest names is there.
		err := m.Ledger.EachManifest(func(_ retention.Repository, d retention.Digest, rec metadata.Manifest) {
			for _, named := range slices.Concat([]retention.Descriptor{{Digest: d}}, rec.Blobs, rec.Children) {
				if !m.HasContent(named.Digest) {
					t.Errorf("%s is on record and has lost %s", d, named.Digest)
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		// By what a client gets.
		o.FailAll()
		left := 0
		for tag, root := range roots {
			if !m.HasManifest(mirrortest.App, root.Digest) {
				continue
			}
			left++
			m.PullImage(t, mirrortest.App, tag)
			list, err := m.Referrers(t.Context(), mirrortest.App, root.Digest)
			if err != nil || len(list.Manifests) != 1 || !m.HasContent(list.Manifests[0].Digest) {
				t.Errorf("of what refers to %s, %d are listed, and are here no more, %v", tag, len(list.Manifests), err)
			}
		}
		if left == 0 || left == images {
			t.Errorf("%d of %d images are left: nothing is shown by that", left, images)
		}
	})
}
