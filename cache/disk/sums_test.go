package disk

import (
	"bytes"
	"hash/crc32"
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestSumsAreThoseOfThePieces(t *testing.T) {
	for _, size := range []int{0, 1, pieceSize - 1, pieceSize, pieceSize + 1, 3 * pieceSize, large} {
		content := pattern("content", size)
		var want sums
		for rest := content; len(rest) > 0; rest = rest[min(len(rest), pieceSize):] {
			want = append(want, crc32.Checksum(rest[:min(len(rest), pieceSize)], castagnoli))
		}
		for _, step := range []int{7777, 128 << 10, 1 << 20} {
			var s sumWriter
			for rest := content; len(rest) > 0; rest = rest[min(len(rest), step):] {
				_, _ = s.Write(rest[:min(len(rest), step)])
			}
			d := digest.FromBytes(content)
			if got := s.sums(); !bytes.Equal(got.encode(d, int64(size)), want.encode(d, int64(size))) {
				t.Errorf("%d bytes in steps of %d: %x, want %x", size, step, got, want)
			}
		}
		if length := sumsLength(int64(size)); length > 0 && int64(len(want.encode("", int64(size)))) != length {
			t.Errorf("%d bytes have %d bytes of checksums, which are said to be %d", size, len(want.encode("", int64(size))), length)
		}
	}
}

func TestSumsOfOtherContentAreNone(t *testing.T) {
	d, other := digest.FromString("one"), digest.FromString("other")
	b := sums{1, 2}.encode(d, 2*pieceSize)
	if _, ok := decodeSums(b, d, 2*pieceSize); !ok {
		t.Fatal("they are not read back")
	}
	if _, ok := decodeSums(b, other, 2*pieceSize); ok {
		t.Error("they are taken for those of another digest")
	}
	if _, ok := decodeSums(b, d, 2*pieceSize-1); ok {
		t.Error("they are taken for those of another size")
	}
	for bit := range 8 * len(b) {
		wrong := bytes.Clone(b)
		wrong[bit/8] ^= 1 << (bit % 8)
		if _, ok := decodeSums(wrong, d, 2*pieceSize); ok {
			t.Errorf("they are read with bit %d turned over", bit)
		}
	}
}

// FuzzSums holds that a file of checksums is either what was written for that
// content or none at all.
func FuzzSums(f *testing.F) {
	d := digest.FromString("content")
	for _, size := range []int64{0, pieceSize, pieceSize + 1, 2 * pieceSize, large} {
		s := make(sums, (size+pieceSize-1)/pieceSize)
		for i := range s {
			s[i] = uint32(i) * 0x9e3779b1
		}
		f.Add(s.encode(d, size), size)
		if sound := s.encode(d, size); len(s) > 1 { // damaged in each part of it, and of other content
			for _, at := range []int{0, len(sumsMagic) + 3, len(sumsMagic) + 11, len(sound) - 5, len(sound) - 1} {
				damaged := bytes.Clone(sound)
				damaged[at] ^= 1
				f.Add(damaged, size)
			}
			f.Add(s.encode(digest.FromString("other content"), size), size)
		}
	}
	f.Add([]byte{}, int64(1<<62))
	f.Add([]byte(sumsMagic), int64(-1))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		s, ok := decodeSums(b, d, size)
		if !ok {
			return
		}
		if int64(len(s)) != (size+pieceSize-1)/pieceSize {
			t.Errorf("%d checksums of %d bytes", len(s), size)
		}
		if !bytes.Equal(s.encode(d, size), b) {
			t.Errorf("%x is read as %x", b, s)
		}
	})
}
