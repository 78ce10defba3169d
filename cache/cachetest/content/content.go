// Package content makes content for tests. What is the same is made, and its
// digest taken, once in a process.
package content

import (
	"math/rand/v2"
	"sync"
	"unsafe"

	"github.com/opencontainers/go-digest"
)

var (
	made    sync.Map // of func() []byte, by recipe
	digests sync.Map // of digest.Digest, by place
)

type recipe struct {
	seed byte
	size int
}

type place struct {
	first *byte
	size  int
}

// Bytes are n bytes that look random and are the same for the same seed. Whoever
// asks for the same ones shares them, and changes none.
func Bytes(seed byte, n int) []byte {
	known, _ := made.LoadOrStore(recipe{seed, n}, sync.OnceValue(func() []byte {
		b := make([]byte, n)
		_, _ = rand.NewChaCha8([32]byte{seed}).Read(b) // never fails
		digests.Store(place{unsafe.SliceData(b), n}, digest.FromBytes(b))
		return b
	}))
	return known.(func() []byte)()
}

// Digest is the digest of a body.
func Digest(body []byte) digest.Digest {
	if known, ok := digests.Load(place{unsafe.SliceData(body), len(body)}); ok {
		return known.(digest.Digest)
	}
	return digest.FromBytes(body)
}
