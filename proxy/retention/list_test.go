package retention_test

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/retention"
)

// A list reads a repository at a time: the first image is listed before the others
// are looked at, and nothing waits for whoever reads the list slowly.
func TestAListHoldsNothingUp(t *testing.T) {
	disk := memory.New()
	stored := fillWithImages(t, disk, 1000)
	m := mirrortest.New(t, mirrortest.NewOrigin(), func(opts *mirror.Options) { opts.Records, opts.Blobs = disk.Records(), disk.Blobs() })
	n := 0
	err := m.List(t.Context(), func(item retention.Item) error {
		if item.Image == nil {
			return nil
		}
		if n++; n == 1 {
			// In the midst of the list, everything is evicted.
			if freed, err := m.Mirror.Retention.Evict(t.Context(), stored); err != nil || freed != stored {
				t.Errorf("%d of %d bytes were evicted while a list was read: %v", freed, stored, err)
			}
		}
		return nil
	})
	if err != nil || n != 100 {
		t.Errorf("%d images were listed, and all but those of the first repository were gone: %v", n, err)
	}
}

// A layer that images of several repositories have is not theirs alone, and a
// purge of a tag leaves it to the others.
func TestAPurgeOfATagLeavesWhatOtherRepositoriesHave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, nil)
		shared := mirrortest.Bytes(1, 10<<10)
		var layer retention.Descriptor
		for i := range 3 {
			repo := mirrortest.Repository{Upstream: "hub", Name: fmt.Sprint("team/", i)}
			_, layer = o.Image(repo.Name, "1", shared)
			m.PullImage(t, repo, "1")
		}
		mirrortest.Wait()
		for left := 3; left > 0; left-- {
			list, err := m.Inventory(t.Context())
			if err != nil || len(list.Images) != left {
				t.Fatalf("%d images: %v", len(list.Images), err)
			}
			for _, k := range list.Images {
				if alone := k.Alone >= layer.Size; alone != (left == 1) {
					t.Errorf("%d bytes of %d are said to be of %s alone, while %d have them", k.Alone, k.Size, k.Repository, left)
				}
			}
			name := mirrortest.Repository{Upstream: "hub", Name: list.Images[0].Repository}
			purged, err := m.Purge(t.Context(), retention.Target{Repository: name, Ref: "1"}, false)
			if err != nil || (purged.Bytes >= layer.Size) != (left == 1) {
				t.Errorf("purged: %+v, %v, while %d had the layer", purged, err, left)
			}
			if m.HasContent(layer.Digest) != (left > 1) {
				t.Errorf("the layer is here: %v, and %d other repositories have it", left == 1, left-1)
			}
		}
		if n := m.BytesOnDisk(t); n > 0 {
			t.Errorf("%d bytes are left", n)
		}
	})
}
