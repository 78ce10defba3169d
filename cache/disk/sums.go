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
)

// pieceSize is how many bytes one checksum stands for. It is what goes to a
// client in one go: what is checked is still in the processor's cache when it
// is sent, and a lazy puller that reads 50 KB of a layer costs no more than
// this. Smaller pieces would find nothing that these miss.
const pieceSize = 256 << 10

// sumsSuffix names the file of checksums beside its content.
const sumsSuffix = ".sums"

// sumsMagic begins a file of checksums, and names its format.
const sumsMagic = "entrsum1"

// sums are the CRC-32C of each piece of content, the last one shorter. A CRC
// finds every three bits that turn over in a piece and every burst of up to 32,
// and misses one in four billion of whatever else a disk does. It costs a
// tenth of a digest, because processors have it as an instruction. It is no
// proof against people: whoever can write to the folder can write the checksums
// as well. The digest is the proof, when content comes and when it is scrubbed.
type sums []uint32

// summing makes sums of what is written to it.
type summing struct {
	whole sums
	last  uint32 // of the piece that is not full yet
	n     int    // bytes of that
}

func (s *summing) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		part := rest[:min(len(rest), pieceSize-s.n)]
		s.last = crc32.Update(s.last, castagnoli, part)
		rest, s.n = rest[len(part):], s.n+len(part)
		if s.n == pieceSize {
			s.whole, s.last, s.n = append(s.whole, s.last), 0, 0
		}
	}
	return len(b), nil
}

// sums are those of everything written so far.
func (s *summing) sums() sums {
	if s.n == 0 {
		return s.whole
	}
	return append(s.whole[:len(s.whole):len(s.whole)], s.last)
}

// sumsLength is the length of the file of checksums of content of size bytes,
// 0 where there is none: content of one piece is proven by its digest.
func sumsLength(size int64) int64 {
	if size <= pieceSize {
		return 0
	}
	return int64(len(sumsMagic)) + 4 + 8 + 4*((size+pieceSize-1)/pieceSize) + 4
}

// Weight counts the file of checksums, too.
func (b *blobs) Weight(size int64) int64 { return size + sumsLength(size) }

// encode is the content of the file of checksums of d: the format, the length
// of a piece, the size, the sums, and a checksum of all that and of the digest.
// So half a file, a damaged one and one of other content are as good as none.
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

// decodeSums reads what encode wrote for d, and nothing else.
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

// loadSums reads the checksums of the content at path, of size bytes; nil where
// there are none that can be believed.
func loadSums(d cache.Digest, path string, size int64) sums {
	info, err := os.Lstat(path + sumsSuffix)
	if err != nil || !info.Mode().IsRegular() || info.Size() != sumsLength(size) {
		return nil
	}
	file, err := openShared(path+sumsSuffix, os.O_RDONLY)
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

// saveSums puts the checksums of a file beside it, where it has its place at
// path. Nothing waits for the disk: sums that a crash takes are made anew from
// the content, by whoever needs them first.
func (b *blobs) saveSums(d cache.Digest, path string, file *os.File, s sums) {
	info, err := file.Stat()
	if err == nil && sumsLength(info.Size()) > 0 {
		err = b.placeSums(path, info, s.encode(d, info.Size()))
	}
	if err != nil {
		b.log.Warn("content is kept without checksums; they are made when it is read", "digest", d.String(), "error", noRoom(err))
	}
}

func (b *blobs) placeSums(path string, of fs.FileInfo, content []byte) error {
	file, err := createShared(b.drafts, filepath.Base(path)[:12]+"-*"+sumsSuffix)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err = errors.Join(err, file.Close()); err == nil {
		b.beside.Lock()
		defer b.beside.Unlock()
		var now fs.FileInfo
		if now, err = os.Lstat(path); err == nil && !os.SameFile(now, of) {
			err = fmt.Errorf("%s is another file now: %w", path, fs.ErrNotExist)
		}
		if err == nil {
			if err = rename(file.Name(), path+sumsSuffix); err == nil {
				return nil
			}
		}
	}
	os.Remove(file.Name())
	if errors.Is(err, fs.ErrNotExist) {
		return nil // deleted since, or replaced with sums of its own
	}
	return err
}

// dropSums removes checksums whose content is not there, which a crash or an
// entrepot that knows none may have left.
func (b *blobs) dropSums(path string) {
	b.beside.Lock()
	defer b.beside.Unlock()
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		os.Remove(path + sumsSuffix)
	}
}
