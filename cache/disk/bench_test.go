package disk

import (
	"fmt"
	"testing"
	"time"

	"github.com/entrepot/entrepot/cache"
)

func openBench(b *testing.B) *Cache {
	b.Helper()
	c, err := Open(b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c
}

func BenchmarkOpenBlob(b *testing.B) {
	c := openBench(b)
	want := descriptor("content", 4096)
	draft, err := c.Blobs().Create(b.Context(), want)
	if err != nil {
		b.Fatal(err)
	}
	defer draft.Close()
	if _, err := draft.Write(pattern("content", 4096)); err != nil {
		b.Fatal(err)
	}
	if err := draft.Commit(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		blob, err := c.Blobs().Open(b.Context(), want.Digest)
		if err != nil {
			b.Fatal(err)
		}
		if err := blob.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCheck is what a piece costs before it is sent: one that is checked
// already, and one that has to be read and held against its checksum.
func BenchmarkCheck(b *testing.B) {
	c := openBench(b)
	want := descriptor("content", large)
	draft, err := c.Blobs().Create(b.Context(), want)
	if err != nil {
		b.Fatal(err)
	}
	defer draft.Close()
	if _, err := draft.Write(pattern("content", large)); err != nil {
		b.Fatal(err)
	}
	if err := draft.Commit(); err != nil {
		b.Fatal(err)
	}
	for name, every := range map[string]time.Duration{"hot": time.Hour, "read": 0} {
		b.Run(name, func(b *testing.B) {
			c.blobs.verifyEvery = every
			blob, err := c.Blobs().Open(b.Context(), want.Digest)
			if err != nil {
				b.Fatal(err)
			}
			defer blob.Close()
			b.SetBytes(pieceSize)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := blob.Check(b.Context(), pieceSize, pieceSize); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDraftWrite(b *testing.B) {
	c := openBench(b)
	piece := pattern("content", 64<<10)
	b.SetBytes(int64(len(piece)))
	want := cache.Descriptor{Digest: descriptor("content", 1).Digest, Size: -1}
	for b.Loop() {
		draft, err := c.Blobs().Create(b.Context(), want)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := draft.Write(piece); err != nil {
			b.Fatal(err)
		}
		if err := draft.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDraftWriteLarge is a layer that is only appended to.
func BenchmarkDraftWriteLarge(b *testing.B) {
	c := openBench(b)
	piece := pattern("content", 128<<10)
	const size = 64 << 20
	b.SetBytes(size)
	b.ReportAllocs()
	want := cache.Descriptor{Digest: descriptor("content", 1).Digest, Size: size}
	for b.Loop() {
		draft, err := c.Blobs().Create(b.Context(), want)
		if err != nil {
			b.Fatal(err)
		}
		if err := draft.Reserve(); err != nil {
			b.Fatal(err)
		}
		for range size / len(piece) {
			if _, err := draft.Write(piece); err != nil {
				b.Fatal(err)
			}
		}
		if err := draft.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRecordsGet(b *testing.B) {
	for _, state := range []string{"waiting", "durable"} {
		b.Run(state, func(b *testing.B) {
			r := openBench(b).Records()
			for i := range 10_000 {
				r.Put("a", fmt.Sprintf("docker.io\x00library/alpine\x00%05d", i), make([]byte, 200))
			}
			if state == "durable" {
				if err := r.Flush(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					if _, err := r.Get("a", fmt.Sprintf("docker.io\x00library/alpine\x00%05d", i%10_000)); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

func BenchmarkRecordsPut(b *testing.B) {
	r := openBench(b).Records()
	value := make([]byte, 200)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		r.Put("a", fmt.Sprintf("docker.io\x00library/alpine\x00%05d", i%10_000), value)
	}
}
