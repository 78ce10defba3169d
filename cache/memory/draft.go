package memory

import (
	"bytes"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache"
)

var errDone = errors.New("the draft is closed, kept or committed")

type draft struct {
	blobs *blobs
	want  cache.Descriptor
	hash  hash.Hash // of the prefix

	mu       sync.RWMutex // guards what follows
	prefix   []byte       // append-only
	ahead    pieces       // what is behind the prefix
	have     cache.Spans  // all of it
	reserved int64        // bytes that are reserved and not written yet
	done     bool         // closed, kept or committed
}

func (b *blobs) newDraft(want cache.Descriptor) *draft {
	return &draft{blobs: b, want: want, hash: want.Digest.Algorithm().Hash()}
}

func (d *draft) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	at := cache.Span{From: int64(len(d.prefix)), To: int64(len(d.prefix) + len(p))}
	if err := d.refuse(at); err != nil {
		return 0, fmt.Errorf("write %s: %w", d.want.Digest, err)
	}
	n := d.take(at)
	at.To = at.From + int64(n)
	d.ahead.remove(at)
	d.have.Add(at)
	d.hash.Write(p[:n])
	d.prefix = append(d.prefix, p[:n]...)
	if n < len(p) {
		return n, fmt.Errorf("write %s: %w", d.want.Digest, cache.ErrFull)
	}
	return n, nil
}

func (d *draft) Prefix() (hash.Hash, int64, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	copied, err := cache.CloneHash(d.hash)
	return copied, int64(len(d.prefix)), err
}

// WriteAt leaves bytes that are there already as they are.
func (d *draft) WriteAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := cache.Span{From: off, To: off + int64(len(p))}
	err := d.refuse(all)
	for rest := all; err == nil; {
		missing := d.have.Missing(rest)
		if missing.Len() == 0 {
			return len(p), nil
		}
		piece := missing
		if piece.To = piece.From + int64(d.take(piece)); piece.To < missing.To {
			err = cache.ErrFull
		}
		d.ahead.add(piece.From, bytes.Clone(p[piece.From-off:piece.To-off]))
		d.have.Add(piece)
		rest.From = piece.To
		all.From = piece.To // what was done
	}
	return int(all.From - off), fmt.Errorf("write %s at %d: %w", d.want.Digest, off, err)
}

// refuse returns why a span can't be written.
func (d *draft) refuse(s cache.Span) error {
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

// take takes room for the bytes of a span that are not there yet. It returns
// how many bytes of the span can be written.
func (d *draft) take(s cache.Span) int {
	end := s.From
	for end < s.To {
		missing := d.have.Missing(cache.Span{From: end, To: s.To})
		reserved := min(missing.Len(), d.reserved)
		d.reserved -= reserved
		taken := reserved + d.blobs.reserve(missing.Len()-reserved)
		end = missing.From + taken
		if taken < missing.Len() {
			break
		}
	}
	return int(min(end, s.To) - s.From)
}

func (d *draft) Advance(n int) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.done {
		return 0, fmt.Errorf("advance %s: %w", d.want.Digest, errDone)
	}
	advanced := 0
	for advanced < n {
		from := int64(len(d.prefix))
		next := d.ahead.at(from)
		next = next[:min(len(next), n-advanced)]
		if len(next) == 0 {
			break
		}
		d.hash.Write(next)
		d.prefix = append(d.prefix, next...)
		d.ahead.remove(cache.Span{From: from, To: from + int64(len(next))})
		advanced += len(next)
	}
	return advanced, nil
}

func (d *draft) Reserve() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	more := d.want.Size - d.have.Len() - d.reserved
	if d.done || more <= 0 {
		return nil
	}
	got := d.blobs.reserve(more)
	if got < more {
		d.blobs.release(got)
		return fmt.Errorf("reserve %d bytes for %s: %w", more, d.want.Digest, cache.ErrFull)
	}
	d.reserved += got
	return nil
}

func (d *draft) Drop(off int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	off = max(off, int64(len(d.prefix)))
	before := d.have.Len()
	d.have.Remove(cache.Span{From: off, To: math.MaxInt64})
	d.ahead.truncate(off)
	d.blobs.release(before - d.have.Len())
}

func (d *draft) Pieces() cache.Spans {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return slices.Clone(d.have)
}

func (d *draft) Check(off, n int64) int64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return max(0, min(n, d.have.End(off)-off))
}

func (d *draft) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("read at a negative offset")
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	n := 0
	for n < len(p) {
		from := d.ahead.at(off + int64(n))
		if at := off + int64(n); at < int64(len(d.prefix)) {
			from = d.prefix[at:]
		}
		if len(from) == 0 {
			return n, io.EOF
		}
		n += copy(p[n:], from)
	}
	return n, nil
}

func (d *draft) Reader() (cache.Blob, error) {
	size := d.want.Size
	if size < 0 {
		size = d.end()
	}
	return &draftReader{draft: d, size: size}, nil
}

// end is the end of the last piece.
func (d *draft) end() int64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if len(d.have) == 0 {
		return 0
	}
	return d.have[len(d.have)-1].To
}

func (d *draft) Written() int64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return int64(len(d.prefix))
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
	if err := d.Verify(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.done {
		return fmt.Errorf("commit %s: %w", d.want.Digest, errDone)
	}
	d.done = true
	d.blobs.publish(d.want.Digest, d.prefix)
	// If the size was not announced, there may be pieces behind the end.
	d.blobs.release(d.reserved + d.have.Len() - int64(len(d.prefix)))
	return nil
}

// Save has nothing to do: nothing here is left when the process ends.
func (d *draft) Save([]byte) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.done {
		return fmt.Errorf("save the draft of %s: %w", d.want.Digest, errDone)
	}
	return nil
}

func (d *draft) Keep(note []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.done {
		return fmt.Errorf("keep the draft of %s: %w", d.want.Digest, errDone)
	}
	d.done = true
	d.blobs.release(d.reserved)
	d.blobs.keep(&kept{
		KeptDraft: cache.KeptDraft{
			Digest: d.want.Digest,
			Size:   d.want.Size,
			Bytes:  d.have.Len(),
			Note:   bytes.Clone(note),
			KeptAt: time.Now(),
		},
		want:   d.want,
		pieces: append(pieces{{0, d.prefix}}, d.ahead...),
		have:   d.have,
	})
	return nil
}

func (d *draft) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.done {
		d.done = true
		d.blobs.release(d.reserved + d.have.Len())
	}
	return nil
}

// draftReader reads a draft at an offset of its own.
type draftReader struct {
	draft *draft
	size  int64
	off   int64
}

func (r *draftReader) Read(p []byte) (int, error) {
	n, err := r.draft.ReadAt(p, r.off)
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
		offset += r.draft.end()
	}
	if offset < 0 {
		return 0, errors.New("seek before the start")
	}
	r.off = offset
	return offset, nil
}

func (r *draftReader) Size() int64 { return r.size }

func (r *draftReader) Close() error { return nil }
