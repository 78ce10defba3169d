package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// smallSize is that of the other platform's layer.
const smallSize = 32 << 10

// pushRandom pushes an image that shares no layer with any other: one layer for this
// platform, and a small one for the other.
func pushRandom(t *testing.T, host, registry, repository string, size int64) image {
	t.Helper()
	img := image{registry: registry, repository: repository, tag: "1"}
	return img.push(t, host, func(arch string) []v1.Layer {
		n := size
		if arch != "amd64" {
			n = smallSize
		}
		content := make([]byte, n)
		// Its error is always nil.
		_, _ = rand.NewChaCha8(sha256.Sum256([]byte(img.reference() + arch))).Read(content)
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := w.WriteHeader(&tar.Header{Name: "random", Mode: 0o644, Size: n, ModTime: built}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return []v1.Layer{static.NewLayer(b.Bytes(), types.OCIUncompressedLayer)}
	})
}

// sizeOf asks the registry how many bytes there are of some platforms of an image.
func sizeOf(t *testing.T, host string, img image, archs ...string) int64 {
	t.Helper()
	size := func(kind, digest string) int64 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodHead, fmt.Sprintf("http://%s/v2/%s/%s/%s", host, img.repository, kind, digest), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", strings.Join([]string{string(types.OCIImageIndex), string(types.OCIManifestSchema1)}, ", "))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s", req.URL, resp.Status)
		}
		return resp.ContentLength
	}
	sum := size("manifests", img.digest)
	for _, arch := range archs {
		sum += size("manifests", img.platforms[arch].manifest)
	}
	for _, blob := range img.blobs(archs...) {
		sum += size("blobs", blob)
	}
	return sum
}
