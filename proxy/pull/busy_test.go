package pull_test

import (
	"bytes"
	"testing"
	"testing/synctest"

	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/pull"
)

// As many downloads are under way as may be. The next client gets its blob all
// the same, and it is not cached.
func TestAClientThatFindsNoPlaceForADownloadIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := mirrortest.NewOrigin()
		held := o.Put("app", "layer", mirrortest.Bytes(1, 100<<10))
		content := mirrortest.Bytes(2, 18<<20)
		layer := o.Put("app", "layer", content)
		bypassed := 0
		m := mirrortest.New(t, o, func(opts *mirror.Options) {
			opts.MaxFlights = 1
			opts.Events.Bypassed = func(string) { bypassed++ }
		})
		release := o.Hold("GET blob app " + mirrortest.Short(held.Digest.String()))
		first := make(chan error, 1)
		go func() { first <- m.Read(t.Context(), mirrortest.App, held.Digest) }()
		synctest.Wait()
		if got, err := m.Fetch(mirrortest.App, layer.Digest); err != nil || !bytes.Equal(got, content) {
			t.Errorf("all of it: %d bytes, %v", len(got), err)
		}
		want := pull.Want{Parts: func(int64) []pull.Span { return []pull.Span{{From: 9 << 20, To: 9<<20 + 1000}} }}
		b, err := m.Blob(t.Context(), mirrortest.App, layer.Digest, want)
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if _, err := b.WriteRange(t.Context(), &got, 9<<20, 1000); err != nil || !bytes.Equal(got.Bytes(), content[9<<20:9<<20+1000]) {
			t.Errorf("a range: %d bytes, %v", got.Len(), err)
		}
		b.Close()
		if bypassed != 2 || m.HasContent(layer.Digest) {
			t.Errorf("%d were counted as not cached; cached: %v", bypassed, m.HasContent(layer.Digest))
		}
		release()
		if err := <-first; err != nil {
			t.Error(err)
		}
	})
}
