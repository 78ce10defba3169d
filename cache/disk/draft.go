package disk

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
)

var errDone = errors.New("the draft is closed or committed")

type draft struct {
	blobs    *blobs
	want     cache.Descriptor
	hash     hash.Hash
	sums     sumWriter
	file     *os.File
	written  atomic.Int64
	reserved int64 // bytes still reserved for this draft
	done     bool  // committed or closed

	mu     sync.Mutex // guards what follows
	path   string     // of the file
	closed bool
}

func (b *blobs) Create(_ context.Context, want cache.Descriptor) (cache.Draft, error) {
	if err := want.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("create %q: %w", want.Digest, err)
	}
	if err := b.hasRoom(want.Size); err != nil {
		return nil, fmt.Errorf("create %s: %w", want.Digest, wrapFull(err))
	}
	file, err := createShared(b.drafts, want.Digest.Encoded()[:12]+"-*")
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", want.Digest, wrapFull(err))
	}
	return &draft{
		blobs: b,
		want:  want,
		hash:  want.Digest.Algorithm().Hash(),
		file:  file,
		path:  file.Name(),
	}, nil
}

func (d *draft) Write(p []byte) (int, error) {
	if d.done {
		return 0, fmt.Errorf("write %s: %w", d.want.Digest, errDone)
	}
	if d.want.Size >= 0 && d.Written()+int64(len(p)) > d.want.Size {
		return 0, fmt.Errorf("write %s past its %d bytes: %w", d.want.Digest, d.want.Size, cache.ErrMismatch)
	}
	n, err := d.write(p)
	// What reached the file counts, even if the write failed, because readers
	// may have it already.
	d.hash.Write(p[:n])
	_, _ = d.sums.Write(p[:n]) // never fails
	d.written.Add(int64(n))
	d.release(min(int64(n), d.reserved))
	if err != nil {
		return n, fmt.Errorf("write %s: %w", d.want.Digest, wrapFull(err))
	}
	return n, nil
}

func (d *draft) write(p []byte) (int, error) {
	if d.blobs.faults.write == nil {
		return d.file.Write(p)
	}
	allowed, refused := d.blobs.faults.write(len(p))
	n, err := d.file.Write(p[:allowed])
	return n, errors.Join(err, refused)
}

// release releases n of the reserved bytes.
func (d *draft) release(n int64) {
	d.reserved -= n
	d.blobs.reserved.Add(-n)
}

func (d *draft) ReadAt(p []byte, off int64) (int, error) { return d.file.ReadAt(p, off) }

func (d *draft) Written() int64 { return d.written.Load() }

func (d *draft) Reader() (cache.Blob, error) {
	size := d.want.Size
	if size < 0 {
		size = d.Written()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, fmt.Errorf("read the draft of %s: %w", d.want.Digest, errDone)
	}
	file, err := openShared(d.path, os.O_RDONLY)
	if err == nil {
		return newBlob(file, size), nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		// It was committed and deleted meanwhile. The file still exists without
		// a name while this draft has it open.
		if file, err = reopen(d.file); err == nil {
			return &offsetReader{file: file, size: size}, nil
		}
	}
	return nil, fmt.Errorf("read the draft of %s: %w", d.want.Digest, err)
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

func (d *draft) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	err := d.file.Close()
	if !d.done {
		d.done = true
		d.release(d.reserved)
		err = errors.Join(err, d.discard())
	}
	if err != nil {
		return fmt.Errorf("close the draft of %s: %w", d.want.Digest, err)
	}
	return nil
}

// discard removes the file of a draft that was not committed. If the file is
// already at its final path and Commit failed in its last step, it stays: it is
// verified, and another draft of the same digest may rely on it.
func (d *draft) discard() error {
	if filepath.Dir(d.path) != d.blobs.drafts {
		return nil
	}
	if err := os.Remove(d.path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
