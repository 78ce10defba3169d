package disk

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
)

var errDone = errors.New("the draft is closed or committed")

// draft is a sparse file. What is known of it is in memory; Save writes that to
// a file beside it.
type draft struct {
	blobs *blobs
	want  cache.Descriptor
	hash  hash.Hash // of the prefix
	file  *os.File
	done  bool // committed, kept or closed
	// offset is where the file stands. Only the prefix is written there.
	offset int64

	written atomic.Int64 // length of the prefix

	mu        sync.Mutex // guards what follows, and the growth of the prefix
	path      string     // of the file
	closed    bool
	saved     bool        // there is a file with the map
	reserved  int64       // bytes still reserved for this draft
	pieces    cache.Spans // that are in the file
	sums      sumWriter   // of the prefix
	runs      []run       // of pieces behind it
	unchecked cache.Spans // pieces of an earlier draft that nobody has read yet
	checking  sync.Mutex  // held while they are read
}

func (b *blobs) Create(_ context.Context, want cache.Descriptor) (cache.Draft, error) {
	if err := want.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("create %q: %w", want.Digest, err)
	}
	if err := b.reserve(0); err != nil {
		return nil, fmt.Errorf("create %s of %d bytes: %w", want.Digest, want.Size, wrapFull(err))
	}
	file, err := createShared(b.drafts, want.Digest.Encoded()[:12]+"-*")
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", want.Digest, wrapFull(err))
	}
	return b.newDraft(want, file), nil
}

func (b *blobs) newDraft(want cache.Descriptor, file *os.File) *draft {
	return &draft{blobs: b, want: want, hash: want.Digest.Algorithm().Hash(), file: file, path: file.Name()}
}

func (d *draft) Reserve() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	more := d.want.Size - d.pieces.Len() - d.reserved
	if more <= 0 {
		return nil
	}
	if err := d.blobs.reserve(more); err != nil {
		return fmt.Errorf("reserve %d bytes for %s: %w", more, d.want.Digest, wrapFull(err))
	}
	d.reserved += more
	return nil
}

func (d *draft) Write(p []byte) (int, error) {
	off := d.Written()
	n, err := d.write(p, off, d.append)
	// What reached the file counts, even if the write failed, because readers
	// may have it already.
	d.mu.Lock()
	defer d.mu.Unlock()
	d.extend(p[:n])
	d.add(off, n)
	return n, err
}

func (d *draft) WriteAt(p []byte, off int64) (int, error) {
	if off < d.Written() {
		return 0, fmt.Errorf("write %s at %d, which is in its prefix", d.want.Digest, off)
	}
	n, err := d.write(p, off, d.file.WriteAt)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.addRun(off, p[:n])
	d.add(off, n)
	return n, err
}

// append writes to the end of the prefix. Unlike os.File.WriteAt, it says how
// much has reached a file that can't grow any more.
func (d *draft) append(p []byte, off int64) (int, error) {
	if d.offset != off {
		if _, err := d.file.Seek(off, io.SeekStart); err != nil {
			return 0, err
		}
	}
	n, err := d.file.Write(p)
	d.offset = off + int64(n)
	return n, err
}

// write writes to the file.
func (d *draft) write(p []byte, off int64, write func(p []byte, off int64) (int, error)) (int, error) {
	if d.done {
		return 0, fmt.Errorf("write %s: %w", d.want.Digest, errDone)
	}
	if d.want.Size >= 0 && off+int64(len(p)) > d.want.Size {
		return 0, fmt.Errorf("write %s past its %d bytes: %w", d.want.Digest, d.want.Size, cache.ErrMismatch)
	}
	allowed, refused := len(p), error(nil)
	if d.blobs.faults.write != nil {
		allowed, refused = d.blobs.faults.write(len(p))
	}
	n, err := write(p[:allowed], off)
	if err = errors.Join(err, refused); err != nil {
		return n, fmt.Errorf("write %s: %w", d.want.Digest, wrapFull(err))
	}
	return n, nil
}

// extend appends b to the prefix. d.mu is held.
func (d *draft) extend(b []byte) {
	d.hash.Write(b)
	_, _ = d.sums.Write(b) // never fails
	d.written.Add(int64(len(b)))
}

// add notes that n bytes are in the file. d.mu is held.
func (d *draft) add(off int64, n int) {
	d.pieces.Add(cache.Span{From: off, To: off + int64(n)})
	d.release(min(int64(n), d.reserved))
}

// release releases n of the reserved bytes. d.mu is held.
func (d *draft) release(n int64) {
	d.reserved -= n
	d.blobs.reserved.Add(-n)
}

func (d *draft) Pieces() cache.Spans {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.pieces)
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

// discard removes the files of a draft that was not committed. If the file is
// already at its final path and Commit failed in its last step, it stays: it is
// verified, and another draft of the same digest may rely on it. d.mu is held.
func (d *draft) discard() error {
	if filepath.Dir(d.path) != d.blobs.drafts {
		return nil
	}
	return errors.Join(d.removeMap(d.path), removeFile(d.path))
}

// removeMap removes the map of the draft at a path. d.mu is held.
func (d *draft) removeMap(path string) error {
	if !d.saved {
		return nil
	}
	d.saved = false
	return removeFile(path + mapSuffix)
}

func removeFile(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
