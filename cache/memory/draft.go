package memory

import (
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
)

var errClosed = errors.New("the draft is closed or committed")

type draft struct {
	blobs *blobs
	want  cache.Descriptor
	hash  hash.Hash
	done  bool // committed or closed

	mu      sync.RWMutex
	content []byte // append-only
}

func (d *draft) Write(p []byte) (int, error) {
	if d.done {
		return 0, fmt.Errorf("write %s: %w", d.want.Digest, errClosed)
	}
	if d.want.Size >= 0 && d.Written()+int64(len(p)) > d.want.Size {
		return 0, fmt.Errorf("write %s past its %d bytes: %w", d.want.Digest, d.want.Size, cache.ErrMismatch)
	}
	n := d.blobs.reserve(len(p))
	d.hash.Write(p[:n])
	d.mu.Lock()
	d.content = append(d.content, p[:n]...)
	d.mu.Unlock()
	if n < len(p) {
		return n, fmt.Errorf("write %s: %w", d.want.Digest, cache.ErrFull)
	}
	return n, nil
}

func (d *draft) ReadAt(p []byte, off int64) (int, error) {
	return readAt(d.bytes(), p, off)
}

func (d *draft) Reader() (cache.Blob, error) {
	return &draftReader{draft: d, size: d.Written()}, nil
}

func (d *draft) Written() int64 { return int64(len(d.bytes())) }

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

func (d *draft) Close() error {
	if !d.done {
		d.done = true
		d.blobs.release(len(d.bytes()))
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
