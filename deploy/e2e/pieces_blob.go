package e2e

import (
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// knownBlob is a blob at an upstream with its bytes at hand, so that each byte
// that a client gets can be held against what was pushed.
type knownBlob struct {
	repository, digest string
	content            []byte // of a file: the page cache has it, not the heap
}

func (b *knownBlob) size() int64      { return int64(len(b.content)) }
func (b *knownBlob) path() string     { return "/v2/" + b.repository + "/blobs/" + b.digest }
func (b *knownBlob) manifest() string { return "/v2/" + b.repository + "/manifests/1" }

// pushKnown pushes an image whose one layer nothing compresses, in the one type
// that Ollama asks for (F1).
func (s *suite) pushKnown(t *testing.T, host, repository string, size int64) *knownBlob {
	t.Helper()
	content := s.mapped(t, func(w io.Writer) error { return writeRandom(w, size) })
	return pushLayer(t, host, repository, content, mutate.Addendum{Layer: static.NewLayer(content, types.DockerUncompressedLayer)})
}

// pushLayer pushes an image of one layer, whose content is known.
func pushLayer(t *testing.T, host, repository string, content []byte, layer mutate.Addendum) *knownBlob {
	t.Helper()
	digest, err := layer.Layer.Digest()
	if err != nil {
		t.Fatal(err)
	}
	mediaType, err := layer.Layer.MediaType()
	if err != nil {
		t.Fatal(err)
	}
	base := empty.Image
	if mediaType != types.DockerUncompressedLayer {
		base = mutate.ConfigMediaType(mutate.MediaType(base, types.OCIManifestSchema1), types.OCIConfigJSON)
	}
	img, err := mutate.Append(base, layer)
	if err != nil {
		t.Fatal(err)
	}
	img, err = mutate.ConfigFile(img, &v1.ConfigFile{OS: "linux", Architecture: "amd64", Created: v1.Time{Time: built}, RootFS: configFile(t, img).RootFS})
	if err != nil {
		t.Fatal(err)
	}
	target, err := name.NewTag(host+"/"+repository+":1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(target, img); err != nil {
		t.Fatal(err)
	}
	return &knownBlob{repository: repository, digest: digest.String(), content: content}
}

// writeRandom writes bytes that look random and are the same in every run.
func writeRandom(w io.Writer, size int64) error {
	random := rand.NewChaCha8([32]byte{byte(size), byte(size >> 8), byte(size >> 16), byte(size >> 24)})
	_, err := io.CopyN(w, random, size)
	return err
}

// mapped is a file that is written now, and then only read.
func (s *suite) mapped(t *testing.T, write func(io.Writer) error) []byte {
	t.Helper()
	file, err := os.Create(filepath.Join(s.folder(t), "content"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := write(file); err != nil {
		t.Fatal(err)
	}
	stat, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	content, err := syscall.Mmap(int(file.Fd()), 0, int(stat.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Munmap(content); err != nil {
			t.Error(err)
		}
	})
	return content
}
