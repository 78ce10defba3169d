package retention_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/retention"
	"github.com/entrepot/entrepot/upstream"
)

// What a wide image names beyond its record is asked about as what others name
// is: before the upstream has said that the repository has it, the image is not
// whole where it was fetched with credentials.
func TestAWideImageIsWholeWhenTheUpstreamHasSaidThatItHasItsBlobs(t *testing.T) {
	const layers = 300
	for _, credentialed := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			o := mirrortest.NewOrigin()
			other := retention.Repository{Upstream: "hub", Name: "other"}
			m := mirrortest.New(t, o, func(opts *mirror.Options) { opts.Upstreams[0].Credentialed = credentialed })
			var named []string
			var last retention.Digest
			for i := range layers {
				content := []byte(fmt.Sprint("layer ", i))
				d := o.Put("app", "", content)
				o.Put("other", "", content)
				if err := m.Read(t.Context(), other, d.Digest); err != nil {
					t.Fatal(err)
				}
				named, last = append(named, fmt.Sprintf(`{"digest":"%s","size":%d}`, d.Digest, d.Size)), d.Digest
			}
			// Nobody has what has URLs, and its layers are not asked for.
			named = append(named, fmt.Sprintf(`{"digest":"%s","size":1,"urls":["https://elsewhere.test/"]}`, digest.FromString("elsewhere")))
			o.Put("app", ocispec.MediaTypeImageManifest, fmt.Appendf(nil, `{"schemaVersion":2,"config":{"digest":"%s","size":7},"layers":[%s]}`, last, strings.Join(named, ",")), "wide")
			if _, err := m.Manifest(t.Context(), mirrortest.App, "wide"); err != nil {
				t.Fatal(err)
			}
			mirrortest.Wait() // the last layers may not be published yet
			image := retention.Reference{Repository: mirrortest.App, Ref: "wide"}
			if got := m.IsComplete(t.Context(), image, false); got == credentialed {
				t.Errorf("credentials: %t; whole before the upstream is asked: %t", credentialed, got)
			}
			line := "HEAD blob app " + mirrortest.Short(last.String())
			o.Transcript()
			if credentialed {
				o.Fail(line, upstream.ErrNotFound)
			}
			end := m.Prefetch(t)
			time.Sleep(5 * time.Minute)
			if got := m.IsComplete(t.Context(), image, false); got == credentialed {
				t.Errorf("credentials: %t; whole without its last layer: %t", credentialed, got)
			}
			end()
			heads := 0
			for _, asked := range o.Transcript() {
				if strings.HasPrefix(asked, "HEAD blob app ") && asked != line {
					heads++
				}
			}
			if want := map[bool]int{true: layers - 1}[credentialed]; heads != want {
				t.Errorf("credentials: %t; the upstream was asked about %d other layers, want %d", credentialed, heads, want)
			}
			o.ClearFailures()
			if _, err := m.Pin(t.Context(), image); err != nil {
				t.Error(err)
			}
			if !m.IsComplete(t.Context(), image, false) {
				t.Errorf("credentials: %t; it is not whole in the end: %q", credentialed, m.Missing(t))
			}
		})
	}
}
