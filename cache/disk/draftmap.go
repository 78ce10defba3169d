package disk

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"slices"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/disk/files"
)

// mapSuffix is the suffix of the map of a draft.
const mapSuffix = ".map"

// mapMagic is the beginning of a map. It identifies its format.
const mapMagic = "entrmap1"

// maxMap limits the memory that a damaged map can take. The pieces of 1 TB, all
// there, take 40 MB.
const maxMap = 256 << 20

// draftMap says which pieces of a draft are durable. The pieces have checksums,
// because the file may be damaged, or written over after the map was.
type draftMap struct {
	digest cache.Digest
	size   int64 // announced; -1 if it is not known
	at     time.Time
	note   []byte
	runs   []run // sorted
}

// snapshot returns the map of what has been written so far.
func (d *draft) snapshot(note []byte) draftMap {
	d.mu.Lock()
	complete, last, n := d.sums.complete, d.sums.last, d.sums.n
	m := draftMap{digest: d.want.Digest, size: d.want.Size, at: time.Now(), note: note, runs: d.runs.all()}
	d.mu.Unlock()
	for piece, sum := range complete {
		from := int64(piece) * pieceSize
		m.runs = append(m.runs, run{cache.Span{From: from, To: from + pieceSize}, sum, true})
	}
	if n > 0 {
		from := int64(len(complete)) * pieceSize
		m.runs = append(m.runs, run{cache.Span{From: from, To: from + int64(n)}, last, true})
	}
	slices.SortFunc(m.runs, func(a, b run) int { return cmp.Compare(a.From, b.From) })
	return m
}

// kept describes the draft, which takes room for its bytes and for the map.
func (m draftMap) kept() cache.KeptDraft {
	k := cache.KeptDraft{Digest: m.digest, Size: m.size, Note: m.note, KeptAt: m.at}
	for _, r := range m.runs {
		k.Bytes += r.Len()
	}
	k.Weight = k.Bytes + int64(len(m.encode()))
	return k
}

// encode returns the content of the file: the format, the digest, the size, the
// time in nanoseconds, the note, for each run the distance from the one before,
// the length and the checksum, and a checksum of all that.
func (m draftMap) encode() []byte {
	b := []byte(mapMagic)
	b = binary.AppendUvarint(b, uint64(len(m.digest)))
	b = append(b, m.digest...)
	b = binary.BigEndian.AppendUint64(b, uint64(m.size))
	b = binary.BigEndian.AppendUint64(b, uint64(m.at.UnixNano()))
	b = binary.AppendUvarint(b, uint64(len(m.note)))
	b = append(b, m.note...)
	at := int64(0)
	for _, r := range m.runs {
		b = binary.AppendUvarint(b, uint64(r.From-at))
		b = binary.AppendUvarint(b, uint64(r.Len()))
		b = binary.BigEndian.AppendUint32(b, r.sum)
		at = r.To
	}
	return sealMap(b)
}

// sealMap appends the checksum of a map.
func sealMap(b []byte) []byte {
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

var errNoMap = errors.New("not a valid map of a draft")

// decodeMap decodes what encode returned, and refuses anything else. Its runs
// are not checked.
func decodeMap(b []byte) (m draftMap, err error) {
	body, ok := bytes.CutPrefix(b, []byte(mapMagic))
	if !ok || len(body) < 4 {
		return m, errNoMap
	}
	body = body[:len(body)-4]
	if binary.BigEndian.Uint32(b[len(b)-4:]) != crc32.Checksum(b[:len(b)-4], castagnoli) {
		return m, errNoMap
	}
	rest := mapDecoder{rest: body}
	m.digest = cache.Digest(rest.bytes(rest.uvarint()))
	m.size = int64(rest.uint64())
	m.at = time.Unix(0, int64(rest.uint64()))
	m.note = bytes.Clone(rest.bytes(rest.uvarint()))
	end := m.size
	if m.size < 0 {
		end = math.MaxInt64
	}
	at := int64(0)
	for len(rest.rest) > 0 && !rest.bad {
		gap, length, sum := rest.uvarint(), rest.uvarint(), rest.uint32()
		left := uint64(end - at)
		if gap > left || length == 0 || length > left-gap {
			return m, errNoMap
		}
		from := at + int64(gap)
		at = from + int64(length)
		if from/pieceSize != (at-1)/pieceSize {
			return m, errNoMap
		}
		m.runs = append(m.runs, run{Span: cache.Span{From: from, To: at}, sum: sum})
	}
	if rest.bad || m.digest.Validate() != nil || m.size < -1 {
		return m, errNoMap
	}
	return m, nil
}

// mapDecoder reads the fields of a map. Once it is bad, what it returns means
// nothing.
type mapDecoder struct {
	rest []byte
	bad  bool
}

func (d *mapDecoder) bytes(n uint64) []byte {
	if n > uint64(len(d.rest)) {
		d.bad, d.rest = true, nil
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *mapDecoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	d.bytes(uint64(max(n, 0)))
	d.bad = d.bad || n <= 0
	return v
}

func (d *mapDecoder) uint32() uint32 {
	if b := d.bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (d *mapDecoder) uint64() uint64 {
	if b := d.bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// readMap reads the map of the draft at path, without the pieces that the file
// is too short for. The error wraps errNoMap if there is no valid map or no
// file.
func readMap(system files.System, path string) (m draftMap, err error) {
	info, err := system.Lstat(path)
	if err != nil {
		return m, wrapNoMap(err)
	}
	if !info.Mode().IsRegular() {
		return m, errNoMap
	}
	file, err := system.Open(path+mapSuffix, os.O_RDONLY)
	if err != nil {
		return m, wrapNoMap(err)
	}
	defer file.Close()
	raw, err := io.ReadAll(io.LimitReader(file, maxMap))
	if err != nil {
		return m, wrapNoMap(err)
	}
	if m, err = decodeMap(raw); err != nil {
		return m, err
	}
	m.runs = slices.DeleteFunc(m.runs, func(r run) bool { return r.To > info.Size() })
	return m, nil
}

// wrapNoMap adds errNoMap to the errors that mean that a map is lost. Others may
// pass.
func wrapNoMap(err error) error {
	if isMissing(err) || isReadDamage(err) {
		return fmt.Errorf("%w: %w", errNoMap, err)
	}
	return err
}
