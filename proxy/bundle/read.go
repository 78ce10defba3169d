package bundle

import (
	"archive/tar"
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// maxJSON is the size in bytes of the largest JSON file before the blobs: ten
	// thousand images have some twenty million.
	maxJSON = 64 << 20
	// maxMembers is how many members a file has at most.
	maxMembers = 2 << 20
)

// Reader reads a bundle, or another OCI layout in a tar, in one pass. It trusts
// nothing.
type Reader struct {
	source   *source
	tar      *tar.Reader
	blob     *Blob
	held     *Blob // that Contents has met
	ended    error // what Next returned last, if it was an error
	seen     map[string]struct{}
	listed   map[Digest]int64
	layout   bool
	index    *ocispec.Index
	contents *Contents
}

// source notes how a file ended: a stream that was cut is no damaged file.
type source struct {
	*bufio.Reader
	from io.Reader
	err  error
}

func (s *source) read(p []byte) (n int, err error) {
	n, err = s.from.Read(p)
	if err != nil {
		s.err = err
	}
	return n, err
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// NewReader returns a Reader. It reads nothing yet.
func NewReader(r io.Reader) *Reader {
	s := &source{from: r}
	s.Reader = bufio.NewReaderSize(readerFunc(s.read), copyBuffer)
	return &Reader{source: s, seen: make(map[string]struct{})}
}

// Blob is a member that is content. Its bytes are read from it, before the next
// call of Next.
type Blob struct {
	Digest Digest
	Size   int64 // in bytes
	from   *Reader
	left   int64
}

// Read returns the bytes, which are not proven.
func (b *Blob) Read(p []byte) (int, error) {
	n, err := b.from.tar.Read(p)
	b.left -= int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		err = b.from.wrong(err)
	}
	return n, err
}

// Prove reads what is left of a blob and returns ErrDamaged unless it is what
// its name says. Only a blob of which nothing was read can be proven.
func (b *Blob) Prove(to io.Writer) error {
	proof := b.Digest.Verifier()
	if _, err := io.CopyBuffer(io.MultiWriter(to, proof), onlyReader{b}, make([]byte, min(copyBuffer, b.Size+1))); err != nil {
		return err
	}
	if !proof.Verified() {
		return fmt.Errorf("%s: %w: its bytes are something else", b.Digest, ErrDamaged)
	}
	return nil
}

// Contents reads up to the JSON file of ours and returns what it says, and nil
// for a file that has none before its first blob.
func (r *Reader) Contents() (*Contents, error) {
	if r.contents == nil && r.held == nil && r.ended == nil {
		r.held, r.ended = r.next(true)
	}
	if r.ended != nil && !errors.Is(r.ended, io.EOF) {
		return nil, r.ended
	}
	return r.contents, nil
}

// Index returns index.json, once that was read.
func (r *Reader) Index() *ocispec.Index { return r.index }

// Next returns the next blob, or io.EOF at the end of a file that is a layout.
// Other errors are final.
func (r *Reader) Next() (*Blob, error) {
	if b := r.held; b != nil {
		r.held = nil
		return b, nil
	}
	if r.ended != nil {
		return nil, r.ended
	}
	var b *Blob
	b, r.ended = r.next(false)
	return b, r.ended
}

// next reads up to the next blob, or, if that comes first, up to the JSON file of
// ours; then it returns nil.
func (r *Reader) next(toContents bool) (*Blob, error) {
	if r.tar == nil {
		if err := r.open(); err != nil {
			return nil, err
		}
	}
	for {
		h, err := r.tar.Next()
		if errors.Is(err, io.EOF) {
			return nil, r.end()
		}
		if err != nil {
			return nil, r.wrong(err)
		}
		name, isFile, err := r.check(h)
		switch {
		case err != nil:
			return nil, err
		case !isFile:
		case strings.HasPrefix(name, blobsName):
			return r.begin(name, h.Size)
		default:
			if err := r.readJSON(name, h.Size); err != nil {
				return nil, err
			}
			if toContents && name == contentsName {
				return nil, nil //nolint:nilnil // there is none yet
			}
		}
	}
}

// open looks at the first bytes: what is no tar at all is said to be so.
func (r *Reader) open() error {
	first, err := r.source.Peek(512)
	switch {
	case len(first) == 0 && errors.Is(err, io.EOF):
		return fmt.Errorf("%w: the file is empty", ErrNotBundle)
	case err != nil && !errors.Is(err, io.EOF):
		return err
	case bytes.HasPrefix(first, []byte{0x1f, 0x8b}), bytes.HasPrefix(first, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return fmt.Errorf("%w: the file is compressed; decompress it first", ErrNotBundle)
	case len(first) < 512 || string(first[257:262]) != "ustar":
		return fmt.Errorf("%w: the file is no tar", ErrNotBundle)
	}
	r.tar = tar.NewReader(r.source)
	return nil
}

// check returns the clean name of a member, and whether it is a file.
func (r *Reader) check(h *tar.Header) (name string, isFile bool, err error) {
	name = strings.TrimSuffix(strings.TrimPrefix(h.Name, "./"), "/")
	if name == "" {
		name = "."
	}
	if !isLocal(name) {
		return "", false, fmt.Errorf("%w: the name %q leads out of it", ErrHostile, h.Name)
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return name, false, nil
	case tar.TypeXGlobalHeader:
		return name, false, nil
	case tar.TypeReg:
	case tar.TypeSymlink, tar.TypeLink:
		return "", false, fmt.Errorf("%w: %q is a link", ErrHostile, h.Name)
	default:
		return "", false, fmt.Errorf("%w: %q is no file", ErrHostile, h.Name)
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") { // a small file would be a large one
			return "", false, fmt.Errorf("%w: %q is a sparse file", ErrHostile, h.Name)
		}
	}
	if _, again := r.seen[name]; again {
		return "", false, fmt.Errorf("%w: it has %q twice", ErrHostile, name)
	}
	if len(r.seen) >= maxMembers {
		return "", false, fmt.Errorf("%w: it has more than %d files", ErrHostile, maxMembers)
	}
	r.seen[name] = struct{}{}
	return name, true, nil
}

// isLocal says whether a name stays in the folder that it is in, on any system.
func isLocal(name string) bool {
	return name != ".." && !path.IsAbs(name) && path.Clean(name) == name && !strings.HasPrefix(name, "../") && !strings.ContainsAny(name, "\\\x00")
}

// begin begins a blob.
func (r *Reader) begin(name string, size int64) (*Blob, error) {
	algorithm, hex, _ := strings.Cut(strings.TrimPrefix(name, blobsName), "/")
	d := digest.NewDigestFromEncoded(digest.Algorithm(algorithm), hex)
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %q is no name of a blob: %w", ErrDamaged, name, err)
	}
	if r.contents != nil {
		want, listed := r.listed[d]
		switch {
		case !listed:
			return nil, fmt.Errorf("%w: nothing is said of %s", ErrDamaged, d)
		case want != size:
			return nil, fmt.Errorf("%s: %w: it has %d bytes, and should have %d", d, ErrDamaged, size, want)
		}
	}
	r.blob = &Blob{Digest: d, Size: size, from: r, left: size}
	return r.blob, nil
}

// readJSON reads a file that is no blob, if it is one of those that matter.
func (r *Reader) readJSON(name string, size int64) error {
	var into func(raw []byte) error
	switch name {
	case layoutName:
		into = func(raw []byte) error {
			var layout ocispec.ImageLayout
			if err := json.Unmarshal(raw, &layout); err != nil || layout.Version != ocispec.ImageLayoutVersion {
				return fmt.Errorf("%w: its layout is not of version %s", ErrNotBundle, ocispec.ImageLayoutVersion)
			}
			r.layout = true
			return nil
		}
	case indexName:
		into = func(raw []byte) error {
			r.index = new(ocispec.Index)
			if err := json.Unmarshal(raw, r.index); err != nil {
				return fmt.Errorf("%s: %w: %w", name, ErrDamaged, err)
			}
			for _, d := range r.index.Manifests {
				if err := checkDescriptor(d); err != nil {
					return fmt.Errorf("%s: %w: %w", name, ErrDamaged, err)
				}
			}
			return nil
		}
	case contentsName:
		into = func(raw []byte) (err error) {
			if r.contents, err = decodeContents(raw); err != nil {
				return err
			}
			r.listed = make(map[Digest]int64, len(r.contents.Content))
			for _, content := range r.contents.Content {
				r.listed[content.Digest] = content.Size
			}
			return nil
		}
	default:
		return nil
	}
	if size > maxJSON {
		return fmt.Errorf("%w: %q has %d bytes", ErrHostile, name, size)
	}
	raw := new(bytes.Buffer) // it grows with what is there, not with what is announced
	if _, err := raw.ReadFrom(r.tar); err != nil {
		return r.wrong(err)
	}
	return into(raw.Bytes())
}

// end is the end of the file.
func (r *Reader) end() error {
	switch {
	case !r.layout || r.index == nil:
		return fmt.Errorf("%w: it has no %s and %s", ErrNotBundle, layoutName, indexName)
	case r.contents == nil:
		return io.EOF
	}
	for _, content := range r.contents.Content {
		if _, ok := r.seen[blobName(content.Digest)]; !ok {
			return fmt.Errorf("%s: %w: it is not there", content.Digest, ErrDamaged)
		}
	}
	return io.EOF
}

// wrong says what it means that a file can't be read on: it is damaged, or
// whoever sends it has stopped.
func (r *Reader) wrong(err error) error {
	switch {
	case r.source.err != nil && !errors.Is(r.source.err, io.EOF):
		return r.source.err
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return fmt.Errorf("%w: %w", ErrDamaged, ErrTruncated)
	case errors.Is(err, tar.ErrHeader) && !r.layout:
		return fmt.Errorf("%w: %w", ErrNotBundle, err)
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

// ReadContents returns what a file says of itself, and proves nothing. Of a layout
// of another tool it is what its index says; its FormatVersion is zero.
func ReadContents(file io.Reader) (*Contents, error) {
	r := NewReader(file)
	c, err := r.Contents()
	if err != nil || c != nil {
		return c, err
	}
	for {
		if _, err := r.Next(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
	}
	if r.contents != nil {
		return r.contents, nil
	}
	return contentsOf(r.index), nil
}
