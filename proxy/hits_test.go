package proxy_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
	"time"

	"github.com/entrepot/entrepot/cache/disk"
	"github.com/entrepot/entrepot/cache/disk/files/filestest"
	pulling "github.com/entrepot/entrepot/proxy/mirror"
	"github.com/entrepot/entrepot/upstream/upstreamtest"
)

// TestAHitReadsNoFileAndAllocatesLittle: what a hit costs besides net/http's own
// part. The answer's header is net/http's, and is filled here.
func TestAHitReadsNoFileAndAllocatesLittle(t *testing.T) {
	fake := upstreamtest.New(t)
	small := bytes.Repeat([]byte("small"), 400)
	blob := fake.AddBlob("app", small)
	image, _ := fake.AddImage("app", "1", small)
	fake.AddReferrer("app", image, "application/vnd.example.signature", []byte("signature"))
	broken := filestest.Over(disk.OS())
	var handler http.Handler
	m := newMirror(t, fake, setup{files: broken, options: func(o *pulling.Options) { o.Rules.NegativeTTL = time.Minute }, wrap: func(h http.Handler) http.Handler { handler = h; return h }})
	for _, row := range []struct {
		name, method, path string
		allocations        float64
	}{
		{"manifest by digest", http.MethodGet, "/v2/app/manifests/" + image.Digest.String(), 7},
		{"HEAD of a tag", http.MethodHead, "/v2/app/manifests/1", 8},
		{"small blob", http.MethodGet, "/v2/app/blobs/" + blob.Digest.String(), 7},
		{"referrers", http.MethodGet, "/v2/app/referrers/" + image.Digest.String(), 5},
	} {
		t.Run(row.name, func(t *testing.T) {
			for range 2 { // from upstream, and from disk
				if a := m.do(row.method, row.path, nil); a.status != http.StatusOK || a.broken != nil {
					t.Fatalf("%d, %v", a.status, a.broken)
				}
				for began := time.Now(); row.name == "small blob" && !m.keeps(blob.Digest) && time.Since(began) < 10*time.Second; {
					time.Sleep(time.Millisecond)
				}
			}
			broken.Fail(filestest.All, syscall.EIO)
			defer broken.Mend()
			req := httptest.NewRequest(row.method, row.path, nil)
			req.Header.Set("Accept", image.MediaType)
			w := &nowhere{header: http.Header{}}
			n := testing.AllocsPerRun(200, func() {
				clear(w.header)
				w.status = 0
				handler.ServeHTTP(w, req)
			})
			if w.status != http.StatusOK || row.method == http.MethodGet && w.bytes == 0 {
				t.Errorf("with a disk that does nothing: %d, %d bytes", w.status, w.bytes)
			}
			if n > row.allocations {
				t.Errorf("it allocates %v times, want at most %v", n, row.allocations)
			}
		})
	}
}
