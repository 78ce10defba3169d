package pull_test

import (
	"encoding/binary"
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
)

// A boot with a wrong clock writes times that are ahead. None of them makes
// anything fresh.
func TestATimeInTheFutureIsNoTime(t *testing.T) {
	for _, ahead := range []time.Duration{time.Minute, 24 * time.Hour, 365 * 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			o := mirrortest.NewOrigin()
			image, _ := o.Image("app", "1", mirrortest.Bytes(1, 1000))
			o.API = true
			m := mirrortest.New(t, o, nil)
			m.PullImage(t, mirrortest.App, "1")
			if _, err := m.Referrers(t.Context(), mirrortest.App, image.Digest); err != nil {
				t.Fatal(err)
			}
			mirrortest.Wait()
			at := time.Now().Add(ahead)
			m.Records.Put("checked", metadata.Key(mirrortest.App, "1"), binary.BigEndian.AppendUint64(nil, uint64(at.UnixNano())))
			raw, err := json.Marshal(metadata.Referrers{At: at})
			if err != nil {
				t.Fatal(err)
			}
			m.Records.Put("referrers", metadata.Key(mirrortest.App, image.Digest.String()), raw)
			o.Transcript()
			again := mirrortest.New(t, o, func(opts *mirror.Options) { opts.Blobs, opts.Records = m.Blobs, m.Records })
			if list, err := again.Inventory(t.Context()); err != nil || len(list.Images) != 1 || list.Images[0].Fresh {
				t.Errorf("%s ahead: %+v, %v", ahead, list.Images, err)
			}
			if _, err := again.Manifest(t.Context(), mirrortest.App, "1"); err != nil {
				t.Fatal(err)
			}
			if _, err := again.Referrers(t.Context(), mirrortest.App, image.Digest); err != nil {
				t.Fatal(err)
			}
			asked := o.Transcript()
			for _, line := range []string{"HEAD manifest app 1", "GET referrers app " + mirrortest.Short(image.Digest.String())} {
				if mirrortest.Count(asked, line) != 1 {
					t.Errorf("%s ahead: asked %q, without %s", ahead, asked, line)
				}
			}
			// It is fresh now, by a clock that is right.
			if _, err := again.Manifest(t.Context(), mirrortest.App, "1"); err != nil {
				t.Fatal(err)
			}
			mirrortest.WantTranscript(t, o)
		})
	}
}

// The same of a tag that is gone: since when it is gone is not in the future.
func TestATagIsNotGoneSinceTheFuture(t *testing.T) {
	if since := (metadata.Tag{GoneSince: time.Now().Add(time.Hour)}).GoneTime(); since.After(time.Now()) {
		t.Errorf("it is gone since %s", since)
	}
}
