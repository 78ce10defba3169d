package bundle

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The members of a bundle, in this order, and then blobs.
const (
	layoutName   = ocispec.ImageLayoutFile
	indexName    = ocispec.ImageIndexFile
	dockerName   = "manifest.json"
	contentsName = "entrepot.json"
	blobsName    = ocispec.ImageBlobsDir + "/"
)

// blobName is the name of a blob's member.
func blobName(d Digest) string {
	return blobsName + d.Algorithm().String() + "/" + d.Encoded()
}

// Writer writes a bundle.
type Writer struct {
	tar  *tar.Writer
	next []Content
}

// NewWriter writes all that comes before the first blob. loadable are the images
// that manifest.json lists.
func NewWriter(w io.Writer, c Contents, loadable []Loadable) (*Writer, error) {
	c.FormatVersion = FormatVersion
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	out := &Writer{tar: tar.NewWriter(w), next: c.Content}
	docker, err := dockerOf(loadable)
	if err != nil {
		return nil, err
	}
	for _, member := range []struct {
		name string
		json any
	}{
		{layoutName, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}},
		{indexName, indexOf(&c)},
		{dockerName, json.RawMessage(docker)},
		{contentsName, c},
	} {
		raw, err := json.Marshal(member.json)
		if err != nil {
			return nil, err
		}
		if err := out.header(member.name, int64(len(raw))); err != nil {
			return nil, err
		}
		if _, err := out.tar.Write(raw); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// maxUSTAR is the largest size in bytes that a USTAR header can say.
const maxUSTAR = 1<<33 - 1

// header begins a member. A PAX record of the size, which package tar would
// choose, ends several readers with "unexpected EOF".
func (w *Writer) header(name string, size int64) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, Format: tar.FormatUSTAR}
	if size > maxUSTAR || len(name) > 100 && strings.LastIndexByte(name, '/') < len(name)-100 {
		h.Format = tar.FormatGNU // its sizes are in base 256, and its names as long as those of sha512 need
	}
	return w.tar.WriteHeader(h)
}

// Next returns what has to be written next. It returns false if that is all.
func (w *Writer) Next() (Content, bool) {
	if len(w.next) == 0 {
		return Content{}, false
	}
	return w.next[0], true
}

// WriteBlob writes what comes next, and proves it. It returns ErrDamaged if
// content is something else: then what was written is no bundle.
func (w *Writer) WriteBlob(content io.Reader) error {
	want, ok := w.Next()
	if !ok {
		return fmt.Errorf("bundle: nothing more was announced")
	}
	w.next = w.next[1:]
	if err := w.header(blobName(want.Digest), want.Size); err != nil {
		return err
	}
	proof := want.Digest.Verifier()
	n, err := io.CopyBuffer(io.MultiWriter(w.tar, proof), onlyReader{content}, make([]byte, copyBuffer))
	switch {
	case err != nil:
		return fmt.Errorf("bundle: %s: %w", want.Digest, err)
	case n != want.Size || !proof.Verified():
		return fmt.Errorf("bundle: %s: %w: %d bytes that are something else", want.Digest, ErrDamaged, n)
	}
	return nil
}

// copyBuffer is how many bytes are copied at once.
const copyBuffer = 256 << 10

// onlyReader hides what else a reader can do: io.Copy would take the content
// past the proof, or with a small buffer.
type onlyReader struct{ io.Reader }

// Close writes the end. It is an error if something that was announced is
// missing.
func (w *Writer) Close() error {
	if want, more := w.Next(); more {
		return fmt.Errorf("bundle: %s was announced, and not written", want.Digest)
	}
	return w.tar.Close()
}
