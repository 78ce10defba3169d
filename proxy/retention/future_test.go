package retention_test

import (
	"encoding/binary"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/retention"
)

// What was pulled under a clock that was a year ahead does not outlive what has
// been pulled since.
func TestWhatWasUsedInTheFutureIsEvictedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		m := mirrortest.New(t, o, nil)
		layers := map[string]retention.Descriptor{}
		for i, tag := range []string{"ahead", "old", "new"} {
			_, layers[tag] = o.Image("app", tag, mirrortest.Bytes(byte(i), 100<<10))
			m.PullImage(t, mirrortest.App, tag)
			time.Sleep(time.Hour)
		}
		mirrortest.Wait()
		m.Ledger.SaveUses()
		rec, _ := m.Ledger.Tag(mirrortest.App, "ahead")
		image, _ := m.Ledger.Manifest(mirrortest.App, rec.Descriptor.Digest)
		raw := binary.BigEndian.AppendUint64(nil, uint64(time.Now().AddDate(1, 0, 0).UnixNano()))
		m.Records.Put("used", metadata.Key(mirrortest.App, rec.Descriptor.Digest.String()), raw)
		for _, b := range image.Blobs {
			m.Records.Put("used", b.Digest.String(), raw)
		}
		list, err := m.Inventory(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, image := range list.Images {
			if image.LastPulled.After(time.Now()) || image.LastPulled.IsZero() != (fmt.Sprint(image.Tags) == "[ahead]") {
				t.Errorf("%s was last pulled at %s", image.Tags, image.LastPulled)
			}
		}
		again := mirrortest.New(t, o, func(opts *mirror.Options) {
			opts.Blobs, opts.Records = m.Blobs, m.Records
			opts.Bounds.MaxBytes = 250 << 10
		})
		o.Image("app", "more", mirrortest.Bytes(9, 1<<10))
		again.PullImage(t, mirrortest.App, "more")
		time.Sleep(time.Hour)
		mirrortest.Wait()
		for tag, stays := range map[string]bool{"ahead": false, "old": true, "new": true} {
			if again.HasContent(layers[tag].Digest) != stays {
				t.Errorf("%s is cached: %v", tag, !stays)
			}
		}
	})
}

func TestADraftThatWasKeptInTheFutureHasNoUse(t *testing.T) {
	now := time.Now()
	if got := retention.DraftUse(now); got != now.UnixNano() {
		t.Errorf("kept now: %d", got)
	}
	if got := retention.DraftUse(now.AddDate(1, 0, 0)); got != 0 {
		t.Errorf("kept in a year: %d", got)
	}
}
