package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/disk/files"
)

// pieceSize is the number of bytes of a checksum's piece. It is also what is
// sent to a client at once, so a checked piece is still in the processor's
// cache when it is sent. A lazy puller that reads 50 KB of a layer causes no
// more than one such read. Smaller pieces would detect nothing more.
const pieceSize = 256 << 10

// sumsSuffix is the suffix of the file with the checksums.
const sumsSuffix = ".sums"

// sumsMagic is the beginning of that file. It identifies its format.
const sumsMagic = "entrsum1"

// sums are the CRC-32C of each piece of content; the last piece may be shorter.
// A CRC detects up to three flipped bits in a piece and every burst of up to
// 32, and misses one in four billion of other damage. It costs a tenth of a
// digest, because processors have an instruction for it. It does not protect
// against attackers: anyone who can write to the folder can write checksums as
// well. The digest does, when content is fetched and when it is scrubbed.
type sums []uint32

// sumWriter computes the sums of what is written to it.
type sumWriter struct {
	complete sums
	last     uint32 // of the piece that is not complete yet
	n        int    // bytes of that piece
}

func (s *sumWriter) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		part := rest[:min(len(rest), pieceSize-s.n)]
		s.last = crc32.Update(s.last, castagnoli, part)
		rest, s.n = rest[len(part):], s.n+len(part)
		if s.n == pieceSize {
			s.complete, s.last, s.n = append(s.complete, s.last), 0, 0
		}
	}
	return len(b), nil
}

// sums returns the sums of everything written so far.
func (s *sumWriter) sums() sums {
	if s.n == 0 {
		return s.complete
	}
	return append(s.complete[:len(s.complete):len(s.complete)], s.last)
}

// sumsLength returns the length of the file with the checksums of content of
// size bytes. It is 0 for content of one piece, which is verified against its
// digest.
func sumsLength(size int64) int64 {
	if size <= pieceSize {
		return 0
	}
	return int64(len(sumsMagic)) + 4 + 8 + 4*((size+pieceSize-1)/pieceSize) + 4
}

// Weight includes the file with the checksums.
func (b *blobs) Weight(size int64) int64 { return size + sumsLength(size) }

// encode returns the content of the file with the checksums of d: the format,
// the length of a piece, the size, the sums, and a checksum of all that and the
// digest. So a partial file, a damaged one and one for other content are
// recognized.
func (s sums) encode(d cache.Digest, size int64) []byte {
	b := make([]byte, 0, sumsLength(size))
	b = append(b, sumsMagic...)
	b = binary.BigEndian.AppendUint32(b, pieceSize)
	b = binary.BigEndian.AppendUint64(b, uint64(size))
	for _, sum := range s {
		b = binary.BigEndian.AppendUint32(b, sum)
	}
	return binary.BigEndian.AppendUint32(b, sealOf(d, b))
}

// decodeSums decodes what encode returned for d, and refuses anything else.
func decodeSums(b []byte, d cache.Digest, size int64) (sums, bool) {
	length := sumsLength(size)
	if length == 0 || int64(len(b)) != length {
		return nil, false
	}
	body, seal := b[:length-4], binary.BigEndian.Uint32(b[length-4:])
	head := sums(nil).encode(d, size)
	head = head[:len(head)-4]
	if !bytes.HasPrefix(body, head) || sealOf(d, body) != seal {
		return nil, false
	}
	body = body[len(head):]
	s := make(sums, len(body)/4)
	for i := range s {
		s[i] = binary.BigEndian.Uint32(body[4*i:])
	}
	return s, true
}

func sealOf(d cache.Digest, b []byte) uint32 {
	return crc32.Update(crc32.Checksum([]byte(d), castagnoli), castagnoli, b)
}

// loadSums returns the checksums of the content at path, of size bytes, or nil
// if there are no valid ones.
func (b *blobs) loadSums(d cache.Digest, path string, size int64) sums {
	info, err := b.files.Lstat(path + sumsSuffix)
	if err != nil || !info.Mode().IsRegular() || info.Size() != sumsLength(size) {
		return nil
	}
	file, err := b.files.Open(path+sumsSuffix, os.O_RDONLY)
	if err != nil {
		return nil
	}
	defer file.Close()
	raw := make([]byte, info.Size())
	if _, err := io.ReadFull(file, raw); err != nil {
		return nil
	}
	s, _ := decodeSums(raw, d, size)
	return s
}

// saveSums writes the checksums of a file next to its path. It does not wait
// for the disk: checksums that a crash loses are computed again when they are
// needed.
func (b *blobs) saveSums(d cache.Digest, path string, file files.File, s sums) {
	info, err := file.Stat()
	if err == nil && sumsLength(info.Size()) > 0 {
		err = b.placeSums(path, info, s.encode(d, info.Size()))
	}
	if err != nil {
		b.log.Warn("content was stored without checksums; they are computed when it is read", "digest", d.String(), "error", wrapFull(err))
	}
}

func (b *blobs) placeSums(path string, of fs.FileInfo, content []byte) error {
	file, err := b.files.CreateTemp(b.drafts, filepath.Base(path)[:12]+"-*"+sumsSuffix)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err = errors.Join(err, file.Close()); err == nil {
		b.sumsMu.Lock()
		defer b.sumsMu.Unlock()
		var now fs.FileInfo
		if now, err = b.files.Lstat(path); err == nil && !os.SameFile(now, of) {
			err = fmt.Errorf("%s is another file now: %w", path, fs.ErrNotExist)
		}
		if err == nil {
			if err = b.files.Rename(file.Name(), path+sumsSuffix); err == nil {
				return nil
			}
		}
	}
	_ = b.files.Remove(file.Name())
	if errors.Is(err, fs.ErrNotExist) {
		return nil // deleted meanwhile, or replaced by a file with its own sums
	}
	return err
}

// dropSums removes checksums without content. They can be left by a crash, or
// by a version that has no checksums.
func (b *blobs) dropSums(path string) {
	b.sumsMu.Lock()
	defer b.sumsMu.Unlock()
	if _, err := b.files.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		_ = b.files.Remove(path + sumsSuffix)
	}
}
