package upstreamtest

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"unsafe"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Bytes are n bytes that look random and are the same for the same seed. Whoever
// asks for the same ones shares them, and changes none.
func Bytes(seed byte, n int) []byte {
	type key struct {
		seed byte
		size int
	}
	made, _ := contents.LoadOrStore(key{seed, n}, sync.OnceValue(func() []byte {
		b := make([]byte, n)
		if _, err := rand.NewChaCha8([32]byte{seed}).Read(b); err != nil {
			panic(err)
		}
		digests.Store(place{unsafe.SliceData(b), n}, digest.FromBytes(b))
		return b
	}))
	return made.(func() []byte)()
}

// contents are made once in a process, and so are their digests.
var (
	contents sync.Map // of func() []byte, by seed and size
	digests  sync.Map // of digest.Digest, by place
)

type place struct {
	first *byte
	size  int
}

func digestOf(body []byte) digest.Digest {
	if d, ok := digests.Load(place{unsafe.SliceData(body), len(body)}); ok {
		return d.(digest.Digest)
	}
	return digest.FromBytes(body)
}

// AddImage makes an image of layers pullable under a tag.
func (r *Registry) AddImage(repo, tag string, layers ...[]byte) (ocispec.Descriptor, ocispec.Manifest) {
	config := r.AddBlob(repo, fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","created_by":%q}`, tag))
	config.MediaType = ocispec.MediaTypeImageConfig
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: config}
	m.SchemaVersion = 2
	for _, layer := range layers {
		d := r.AddBlob(repo, layer)
		d.MediaType = ocispec.MediaTypeImageLayer
		m.Layers = append(m.Layers, d)
	}
	return r.AddManifest(repo, m.MediaType, encode(m), tag), m
}

// AddReferrer attaches a payload to a subject, by its subject field alone.
func (r *Registry) AddReferrer(repo string, subject ocispec.Descriptor, artifactType string, payload []byte) ocispec.Descriptor {
	config := r.AddBlob(repo, []byte("{}"))
	config.MediaType = ocispec.MediaTypeEmptyJSON
	layer := r.AddBlob(repo, payload)
	m := ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, ArtifactType: artifactType, Config: config,
		Layers: []ocispec.Descriptor{layer}, Subject: &subject,
	}
	m.SchemaVersion = 2
	return r.AddManifest(repo, m.MediaType, encode(m))
}

// AddIndex makes an index of manifests pullable under a tag.
func (r *Registry) AddIndex(repo, tag string, children ...ocispec.Descriptor) ocispec.Descriptor {
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: children}
	index.SchemaVersion = 2
	return r.AddManifest(repo, index.MediaType, encode(index), tag)
}

func encode(v any) []byte {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return body
}
