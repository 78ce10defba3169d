package e2e

import (
	"archive/tar"
	"fmt"
	"io"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// concurrentBuffer has containerd's transfer service read a layer in pieces (F3).
const concurrentBuffer = `[plugins."io.containerd.transfer.v1.local"]
  max_concurrent_downloads = 8
  concurrent_layer_fetch_buffer = 8388608
`

// pushTar pushes an image whose one layer is a file of random bytes.
func (s *suite) pushTar(t *testing.T, host, repository string, size int64) *knownBlob {
	t.Helper()
	content := s.mapped(t, func(to io.Writer) error {
		w := tar.NewWriter(to)
		if err := w.WriteHeader(&tar.Header{Name: "random", Mode: 0o644, Size: size, ModTime: built}); err != nil {
			return err
		}
		if err := writeRandom(w, size); err != nil {
			return err
		}
		return w.Close()
	})
	return pushLayer(t, host, repository, content, mutate.Addendum{Layer: static.NewLayer(content, types.OCIUncompressedLayer)})
}

// concurrentContainerd is a containerd that reads layers in pieces.
func concurrentContainerd(blob *knownBlob) func(*testing.T, *suite, *mirror, string) pieceReading {
	return func(t *testing.T, s *suite, m *mirror, host string) pieceReading {
		c := s.newContainerd(t, "containerd")
		if m != nil {
			m.hosts(t, "containerd", c.hostsDir, "--containerd-version", c.tool.version)
		} else {
			writeFile(t, filepath.Join(c.hostsDir, "docker.io", "hosts.toml"), fmt.Sprintf("[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", "http://"+host))
		}
		c.start(t, containerdConfig(c.tool.version, c.dir)+concurrentBuffer)
		pulled := false
		return func(t *testing.T, _ string) int64 {
			if pulled {
				c.forget(t)
			}
			pulled = true
			c.ctr(t, "images", "pull", "--hosts-dir", c.hostsDir, "docker.io/"+blob.repository+":1")
			checkBlobs(t, c.blobs(), []string{blob.digest})
			return blob.size()
		}
	}
}
