package proxy_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	pulling "github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// A whoseRow is a repository that names a blob of another one. The upstream says
// that it has no such blob there, unless holds is set.
type whoseRow struct {
	name      string
	mediaType string
	manifest  string // with %s for an entry that names the blob
	anyone    bool   // the blob was fetched without credentials
	holds     bool   // the repository has the blob
	away      bool   // the upstream can't be asked any more
	sees      string
	heads     int // how many questions there were
}

func whoseRows() []whoseRow {
	const image, index = ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex
	layer := func(member string) string { return `{"schemaVersion":2,"mediaType":"` + image + `",` + member + `}` }
	one := layer(`"layers":[%s]`)
	return []whoseRow{
		{name: "a layer of an image", mediaType: image, manifest: one, sees: "404 BLOB_UNKNOWN", heads: 1},
		{name: "a layer of an image, and has it", mediaType: image, manifest: one, holds: true, sees: sound, heads: 1},
		{name: "a layer of an image, and the upstream can't be asked", mediaType: image, manifest: one, holds: true, away: true, sees: "502 UNAVAILABLE", heads: 1},
		{name: "a layer of an image; it was fetched without credentials", mediaType: image, manifest: one, holds: true, anyone: true, sees: sound},
		{name: "the config of an image", mediaType: image, manifest: layer(`"config":%s,"layers":[]`), sees: "404 BLOB_UNKNOWN", heads: 1},
		{name: "the subject of an image", mediaType: image, manifest: layer(`"layers":[],"subject":%s`), anyone: true, sees: "404 BLOB_UNKNOWN", heads: 1},
		{name: "an entry of an index that is no manifest", mediaType: index, manifest: `{"schemaVersion":2,"mediaType":"` + index + `","manifests":[%s]}`, anyone: true, sees: "404 BLOB_UNKNOWN", heads: 1},
		{name: "a layer, in `layers` beside an empty `Layers`", mediaType: image, manifest: layer(`"layers":[%s],"Layers":[]`), anyone: true, sees: "404 BLOB_UNKNOWN", heads: 1},
		{name: "a layer, in the first of two `layers`", mediaType: image, manifest: layer(`"layers":[%s],"layers":[]`), anyone: true, sees: "404 BLOB_UNKNOWN", heads: 1},
		{name: "a blob of an artifact manifest", mediaType: "application/vnd.oci.artifact.manifest.v1+json", manifest: `{"mediaType":"application/vnd.oci.artifact.manifest.v1+json","blobs":[%s]}`, anyone: true, sees: "404 BLOB_UNKNOWN", heads: 1},
	}
}

func whoseFaults(t *testing.T) string {
	var lines faultLines
	t.Run("rows", func(t *testing.T) {
		for i, row := range whoseRows() {
			t.Run(row.name, func(t *testing.T) {
				t.Parallel()
				fake := upstreamtest.New(t)
				blob := fake.AddBlob("private", upstreamtest.Bytes(1, 64<<10))
				blob.MediaType = "application/vnd.example.layer"
				entry, err := json.Marshal(blob)
				if err != nil {
					t.Fatal(err)
				}
				fake.AddManifest("other", row.mediaType, fmt.Appendf(nil, row.manifest, entry), "1")
				if row.holds {
					fake.AddBlob("other", upstreamtest.Bytes(1, 64<<10))
				}
				s := setup{dir: t.TempDir(), options: func(o *pulling.Options) { o.Upstreams[0].Credentialed = !row.anyone }}
				first := newMirror(t, fake, s)
				if a := first.get("/v2/private/blobs/" + blob.Digest.String()); outcome(a, blob.Digest) != sound {
					t.Fatalf("%d %s", a.status, a.body)
				}
				first.stop()
				m := newMirror(t, fake, s)
				if !m.keeps(blob.Digest) {
					t.Fatal("the blob is not cached")
				}
				if a := m.get("/v2/other/manifests/1"); a.status != http.StatusOK {
					t.Fatalf("the manifest: %d %s", a.status, a.body)
				}
				if row.away {
					fake.Always("HEAD blobs", upstreamtest.Status(http.StatusServiceUnavailable, "UNAVAILABLE"))
					fake.Always("GET blobs", upstreamtest.Status(http.StatusServiceUnavailable, "UNAVAILABLE"))
				}
				fake.Transcript()
				sees := outcome(m.get("/v2/other/blobs/"+blob.Digest.String()), blob.Digest)
				heads := 0
				for _, line := range fake.Transcript() {
					if strings.HasPrefix(line, "HEAD blobs other ") {
						heads++
					}
				}
				asked := "no"
				if heads > 0 {
					asked, heads = "yes", 1 // it may have been repeated
				}
				if sees != row.sees || heads != row.heads {
					t.Errorf("the client saw %s, and the upstream was asked %d times", sees, heads)
				}
				whose := "with credentials"
				if row.anyone {
					whose = "without"
				}
				lines.add(i, row.name, whose, asked, sees)
			})
		}
	})
	return "## Blobs of other repositories\n\nA blob is cached, because another repository has it. The upstream says 404 for it in this repository, if the row says nothing else. " +
		"The manifest that names it is cached, unless it can be read in two ways.\n\n" +
		lines.table("the repository names it as", "it was fetched", "the upstream is asked", "the client sees")
}
