package disk

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/disk/files"
)

var errDone = errors.New("the draft is closed, kept or committed")

// draft is a file of which any parts may have been written. A part that was not
// is a hole. Locks are taken in the order of the fields.
type draft struct {
	blobs   *blobs
	want    cache.Descriptor
	file    files.File
	mapPath string      // of the map of the pieces
	sparse  atomic.Bool // whether there may be holes, or bytes behind the end

	// saving is held while the map is written, and by what ends that.
	saving sync.Mutex
	saved  bool // whether there may be a map

	hashing sync.Mutex
	hash    hash.Hash // of the prefix

	mu       sync.Mutex   // guards what follows
	written  atomic.Int64 // the length of the prefix; read without mu
	sums     sumWriter    // of the prefix
	ahead    cache.Spans  // the pieces behind the prefix
	runs     runs         // the same pieces, with their checksums
	have     int64        // the bytes that are there
	reserved int64        // the bytes that are reserved and not written yet
	path     string       // of the file
	done     bool         // closed, kept or committed
	closed   bool
}

func (b *blobs) Create(_ context.Context, want cache.Descriptor) (cache.Draft, error) {
	if err := want.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("create %q: %w", want.Digest, err)
	}
	var file files.File
	err := b.restoring(func() (err error) {
		if err = b.hasRoom(want.Size); err == nil {
			file, err = b.files.CreateTemp(b.drafts, want.Digest.Encoded()[:12]+"-*")
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", want.Digest, wrapFull(err))
	}
	return b.newDraft(want, file), nil
}

func (b *blobs) newDraft(want cache.Descriptor, file files.File) *draft {
	return &draft{
		blobs:   b,
		want:    want,
		hash:    want.Digest.Algorithm().Hash(),
		file:    file,
		mapPath: file.Name() + mapSuffix,
		path:    file.Name(),
	}
}

func (d *draft) Write(p []byte) (int, error) {
	at := cache.Span{From: d.Written(), To: d.Written() + int64(len(p))}
	if err := d.refuse(at); err != nil {
		return 0, fmt.Errorf("write %s: %w", d.want.Digest, err)
	}
	n, err := d.write(p, at.From, d.sparse.Load())
	// What reached the file counts, even if the write failed, because readers
	// may have it already.
	d.hashing.Lock()
	defer d.hashing.Unlock()
	d.hash.Write(p[:n])
	d.extend(p[:n], nil)
	if err != nil {
		return n, fmt.Errorf("write %s: %w", d.want.Digest, wrapFull(err))
	}
	return n, nil
}

// refuse returns why a span can't be written.
func (d *draft) refuse(s cache.Span) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.done:
		return errDone
	case s.From < 0 || s.To < s.From:
		return fmt.Errorf("%d to %d are no bytes", s.From, s.To)
	case d.want.Size >= 0 && s.To > d.want.Size:
		return fmt.Errorf("past its %d bytes: %w", d.want.Size, cache.ErrMismatch)
	}
	return nil
}

// stopped returns an error if nothing may be written any more.
func (d *draft) stopped() error { return d.refuse(cache.Span{}) }

// write writes to the file. While there are no holes, the offset of the file is
// the end of the prefix. Of a write that fails, os.File.Write tells how much of
// it reached the file. WriteAt does not, but with holes nobody reads what was
// not counted.
func (d *draft) write(p []byte, off int64, holes bool) (int, error) {
	allowed, refused := len(p), error(nil)
	if d.blobs.faults.write != nil {
		allowed, refused = d.blobs.faults.write(len(p))
	}
	var n int
	var err error
	if holes {
		n, err = d.file.WriteAt(p[:allowed], off)
	} else {
		n, err = d.file.Write(p[:allowed])
	}
	return n, errors.Join(err, refused)
}

// extend extends the prefix by bytes that are in the file. read is what Advance
// has just read for that, or nil.
func (d *draft) extend(by []byte, read *readRun) {
	d.mu.Lock()
	defer d.mu.Unlock()
	span := cache.Span{From: d.Written(), To: d.Written() + int64(len(by))}
	_, _ = d.sums.Write(by) // never fails
	d.have += span.Len()
	if len(d.ahead) > 0 && d.ahead[0].From < span.To {
		d.cut(span.To, read)
		d.runs.remove(span)
		d.have -= d.ahead.Len()
		d.ahead.Remove(span)
		d.have += d.ahead.Len()
	}
	d.written.Store(span.To)
	d.trimReserved()
}

// trimReserved releases what is reserved beyond what is missing. d.mu is held.
func (d *draft) trimReserved() {
	if over := d.reserved - max(d.want.Size-d.have, 0); over > 0 {
		d.release(over)
	}
}

// release releases n of the reserved bytes. d.mu is held.
func (d *draft) release(n int64) {
	d.reserved -= n
	d.blobs.reserved.Add(-n)
}

func (d *draft) Reserve() error {
	d.mu.Lock()
	more := d.want.Size - d.have - d.reserved
	d.mu.Unlock()
	if more <= 0 {
		return nil
	}
	if err := d.blobs.reserve(more); err != nil {
		return fmt.Errorf("reserve %d bytes for %s: %w", more, d.want.Digest, wrapFull(err))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reserved += more
	d.trimReserved() // of what was written meanwhile
	if d.done {
		d.release(d.reserved)
	}
	return nil
}

func (d *draft) Written() int64 { return d.written.Load() }

func (d *draft) Prefix() (hash.Hash, int64, error) {
	d.hashing.Lock()
	defer d.hashing.Unlock()
	copied, err := cache.CloneHash(d.hash)
	return copied, d.Written(), err
}

func (d *draft) Verify() error {
	d.hashing.Lock()
	defer d.hashing.Unlock()
	if n := d.Written(); d.want.Size >= 0 && n != d.want.Size {
		return fmt.Errorf("%s: %d bytes instead of %d: %w", d.want.Digest, n, d.want.Size, cache.ErrMismatch)
	}
	if got := digest.NewDigest(d.want.Digest.Algorithm(), d.hash); got != d.want.Digest {
		return fmt.Errorf("%s: the content is %s: %w", d.want.Digest, got, cache.ErrMismatch)
	}
	return nil
}

// Close waits for a Save that has begun.
func (d *draft) Close() error {
	d.saving.Lock()
	defer d.saving.Unlock()
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

// discard removes the files of a draft that was neither committed nor kept. If
// the file is already at its final path and Commit failed in its last step, it
// stays: it is verified, and another draft of the same digest may rely on it.
func (d *draft) discard() error {
	if err := d.removeMap(); err != nil {
		return err
	}
	if filepath.Dir(d.path) != d.blobs.drafts {
		return nil
	}
	return removeIfThere(d.blobs.files, d.path)
}

// removeMap removes the map, if there may be one. d.saving is held.
func (d *draft) removeMap() error {
	if !d.saved {
		return nil
	}
	return removeIfThere(d.blobs.files, d.mapPath)
}

func removeIfThere(system files.System, path string) error {
	if err := system.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
