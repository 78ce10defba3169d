package e2e

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
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

// pushKnown pushes an image of one layer that nothing compresses, in the one type
// that Ollama asks for (F1).
func (s *suite) pushKnown(t *testing.T, host, repository string, size int64) *knownBlob {
	t.Helper()
	b := &knownBlob{repository: repository, content: s.mapped(t, size)}
	layer := static.NewLayer(b.content, types.DockerUncompressedLayer)
	digest, err := layer.Digest()
	if err != nil {
		t.Fatal(err)
	}
	b.digest = digest.String()
	img, err := mutate.AppendLayers(empty.Image, layer)
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
	return b
}

// mapped is a file of bytes that look random and are the same in every run.
func (s *suite) mapped(t *testing.T, size int64) []byte {
	t.Helper()
	file, err := os.Create(filepath.Join(s.folder(t), "content"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	random := rand.NewChaCha8([32]byte{byte(size), byte(size >> 8), byte(size >> 16), byte(size >> 24)})
	part := make([]byte, 1<<20)
	for left := size; left > 0; left -= int64(len(part)) {
		part = part[:min(left, int64(len(part)))]
		_, _ = random.Read(part) // It never fails.
		if _, err := file.Write(part); err != nil {
			t.Fatal(err)
		}
	}
	content, err := syscall.Mmap(int(file.Fd()), 0, int(size), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(errors.Join(errors.New("map the content"), err))
	}
	t.Cleanup(func() {
		if err := syscall.Munmap(content); err != nil {
			t.Error(err)
		}
	})
	return content
}
