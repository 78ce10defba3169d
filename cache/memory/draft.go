package memory

import (
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
)

var errClosed = errors.New("the draft is closed or committed")

type draft struct {
	blobs *blobs
	want  cache.Descriptor
	hash  hash.Hash
	done  bool // committed, kept or closed

	mu      sync.RWMutex
	content []byte // grows, and never moves what readers have
	pieces  cache.Spans
	prefix  int64
}

func (d *draft) Write(p []byte) (int, error) {
	if d.done {
		return 0, fmt.Errorf("write %s: %w", d.want.Digest, errClosed)
	}
	n, err := d.store(p, d.Written())
	d.hash.Write(p[:n])
	d.mu.Lock()
	defer d.mu.Unlock()
	d.prefix += int64(n)
	return n, err
}

func (d *draft) WriteAt(p []byte, off int64) (int, error) {
	if off < d.Written() {
		return 0, fmt.Errorf("write %s at %d, before the end of its prefix", d.want.Digest, off)
	}
	return d.store(p, off)
}

func (d *draft) store(p []byte, off int64) (int, error) {
	if d.want.Size >= 0 && off+int64(len(p)) > d.want.Size {
		return 0, fmt.Errorf("write %s past its %d bytes: %w", d.want.Digest, d.want.Size, cache.ErrMismatch)
	}
	n := d.blobs.reserve(len(p))
	end := off + int64(n)
	d.mu.Lock()
	if more := end - int64(len(d.content)); more > 0 {
		d.content = append(d.content, make([]byte, more)...)
	}
	copy(d.content[off:end], p)
	d.pieces.Add(cache.Span{From: off, To: end})
	d.mu.Unlock()
	if n < len(p) {
		return n, fmt.Errorf("write %s: %w", d.want.Digest, cache.ErrFull)
	}
	return n, nil
}

func (d *draft) Advance(n int) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	end := min(d.pieces.End(d.prefix), d.prefix+int64(n))
	d.hash.Write(d.content[d.prefix:end])
	n = int(end - d.prefix)
	d.prefix = end
	return n, nil
}

func (d *draft) Drop(off int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	lost := d.pieces.Len()
	d.pieces.Remove(cache.Span{From: max(off, d.prefix), To: int64(len(d.content))})
	d.blobs.release(int(lost - d.pieces.Len()))
}

func (d *draft) Reserve() error {
	if d.want.Size < 0 {
		return nil
	}
	d.blobs.mu.RLock()
	defer d.blobs.mu.RUnlock()
	if rest := d.want.Size - d.Pieces().Len(); rest > d.blobs.available {
		return fmt.Errorf("reserve %s: %d of %d bytes left: %w", d.want.Digest, d.blobs.available, rest, cache.ErrFull)
	}
	return nil
}

func (d *draft) Pieces() cache.Spans {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return slices.Clone(d.pieces)
}

func (d *draft) Check(off, n int64) int64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return min(n, d.pieces.End(off)-off)
}

func (d *draft) ReadAt(p []byte, off int64) (int, error) {
	return readAt(d.bytes(), p, off)
}

func (d *draft) Reader() (cache.Blob, error) {
	size := d.want.Size
	if size < 0 {
		size = d.Written()
	}
	return &draftReader{draft: d, size: size}, nil
}

func (d *draft) Written() int64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.prefix
}

func (d *draft) Verify() error {
	if n := d.Written(); d.want.Size >= 0 && n != d.want.Size {
		return fmt.Errorf("%s: %d bytes instead of %d: %w", d.want.Digest, n, d.want.Size, cache.ErrMismatch)
	}
	if got := digest.NewDigest(d.want.Digest.Algorithm(), d.hash); got != d.want.Digest {
		return fmt.Errorf("%s: the content is %s: %w", d.want.Digest, got, cache.ErrMismatch)
	}
	return nil
}

func (d *draft) Commit() error {
	if d.done {
		return fmt.Errorf("commit %s: %w", d.want.Digest, errClosed)
	}
	if err := d.Verify(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	d.done = true
	d.blobs.publish(d.want.Digest, d.bytes())
	return nil
}

// Save does nothing: nothing here outlives the process.
func (d *draft) Save([]byte) error {
	if d.done {
		return fmt.Errorf("save %s: %w", d.want.Digest, errClosed)
	}
	return nil
}

func (d *draft) Keep(note []byte) error {
	if d.done {
		return fmt.Errorf("keep %s: %w", d.want.Digest, errClosed)
	}
	d.done = true
	d.blobs.keep(d, note)
	return nil
}

func (d *draft) Close() error {
	if !d.done {
		d.done = true
		d.blobs.release(int(d.Pieces().Len()))
	}
	return nil
}

func (d *draft) bytes() []byte {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.content
}

// draftReader reads a draft at an offset of its own.
type draftReader struct {
	draft *draft
	size  int64
	off   int64
}

func (r *draftReader) Read(p []byte) (int, error) {
	n, err := readAt(r.draft.bytes(), p, r.off)
	r.off += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

func (r *draftReader) ReadAt(p []byte, off int64) (int, error) {
	return r.draft.ReadAt(p, off)
}

func (r *draftReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.off
	case io.SeekEnd:
		offset += r.draft.Written()
	}
	if offset < 0 {
		return 0, errors.New("seek before the start")
	}
	r.off = offset
	return offset, nil
}

func (r *draftReader) Size() int64 { return r.size }

func (r *draftReader) Close() error { return nil }

func readAt(content, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("read at a negative offset")
	}
	if off >= int64(len(content)) {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	n := copy(p, content[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
