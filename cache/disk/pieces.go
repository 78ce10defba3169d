package disk

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"slices"

	"github.com/entrepot/entrepot/cache"
)

// WriteAt leaves bytes that are there already as they are, because readers may
// have them.
func (d *draft) WriteAt(p []byte, off int64) (int, error) {
	all := cache.Span{From: off, To: off + int64(len(p))}
	if err := d.refuse(all); err != nil {
		return 0, fmt.Errorf("write %s at %d: %w", d.want.Digest, off, err)
	}
	d.sparse.Store(true)
	for rest := all; ; {
		missing := d.missing(rest)
		if missing.Len() == 0 {
			return len(p), nil
		}
		piece := p[missing.From-off : missing.To-off]
		n, err := d.write(piece, missing.From, true)
		d.add(piece[:n], missing.From)
		rest.From = missing.From + int64(n)
		if err != nil {
			return int(rest.From - off), fmt.Errorf("write %s at %d: %w", d.want.Digest, off, wrapFull(err))
		}
	}
}

// missing is the first part of a span that is not there.
func (d *draft) missing(of cache.Span) cache.Span {
	d.mu.Lock()
	defer d.mu.Unlock()
	of.From = max(of.From, d.Written())
	return d.ahead.Missing(of)
}

// add adds a piece that is in the file.
func (d *draft) add(piece []byte, off int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.runs.add(piece, off)
	d.ahead.Add(cache.Span{From: off, To: off + int64(len(piece))})
	d.have += int64(len(piece))
	d.trimReserved()
}

// readRun is a run whose bytes have been read and match its checksum.
type readRun struct {
	run
	content []byte
}

// read reads a run. It returns an error that wraps cache.ErrMismatch if the run
// is damaged or can't be read.
func (d *draft) read(r run, buffer *[pieceSize]byte) (*readRun, error) {
	content := buffer[:r.Len()]
	err := d.blobs.faults.inject(d.blobs.faults.read)
	if err == nil {
		_, err = d.file.ReadAt(content, r.From)
	}
	if err == nil && crc32.Checksum(content, castagnoli) != r.sum {
		err = errors.New("other bytes than were written")
	}
	if err != nil {
		return nil, fmt.Errorf("%d bytes at %d: %w: %w", r.Len(), r.From, cache.ErrMismatch, err)
	}
	return &readRun{r, content}, nil
}

// Advance reads whole runs, so that only bytes that match their checksums are
// hashed.
func (d *draft) Advance(n int) (advanced int, err error) {
	if err := d.stopped(); err != nil {
		return 0, fmt.Errorf("advance %s: %w", d.want.Digest, err)
	}
	buffer := pieces.Get().(*[pieceSize]byte)
	defer pieces.Put(buffer)
	for advanced < n {
		next, ok := d.runAt(d.Written())
		if !ok {
			break
		}
		read, err := d.read(next, buffer)
		if err != nil {
			d.drop(next, err)
			return advanced, fmt.Errorf("advance %s: %w", d.want.Digest, err)
		}
		advanced += d.advance(read, n-advanced)
	}
	return advanced, nil
}

// advance extends the prefix by at most n bytes of the run that follows it.
func (d *draft) advance(next *readRun, n int) int {
	d.hashing.Lock()
	defer d.hashing.Unlock()
	by := next.content[:min(n, len(next.content))]
	d.hash.Write(by)
	d.extend(by, next)
	return len(by)
}

func (d *draft) runAt(off int64) (run, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.runs.at(off)
}

// cut cuts the run that has the bytes before and after an offset, so that the
// latter have their own checksum. It reads it for that, unless known is that
// run. d.mu is held.
func (d *draft) cut(at int64, known *readRun) {
	r, ok := d.runs.at(at)
	if !ok || r.From == at {
		return
	}
	if known == nil || known.Span != r.Span || known.sum != r.sum {
		buffer := pieces.Get().(*[pieceSize]byte)
		defer pieces.Put(buffer)
		var err error
		if known, err = d.read(r, buffer); err != nil {
			d.remove(r, err)
			return
		}
	}
	before, after := known.content[:at-r.From], known.content[at-r.From:]
	d.runs.remove(r.Span)
	d.runs.put(run{cache.Span{From: r.From, To: at}, crc32.Checksum(before, castagnoli), true})
	d.runs.put(run{cache.Span{From: at, To: r.To}, crc32.Checksum(after, castagnoli), true})
}

// drop drops a run that is damaged, unless it was replaced meanwhile.
func (d *draft) drop(r run, why error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now, ok := d.runs.at(r.From); ok && now == r {
		d.remove(r, why)
	}
}

// remove removes a run. d.mu is held.
func (d *draft) remove(r run, why error) {
	d.blobs.log.Warn("a piece of an unfinished download is damaged; it is fetched again", "digest", d.want.Digest.String(), "error", why)
	d.runs.remove(r.Span)
	d.ahead.Remove(r.Span)
	d.have -= r.Len()
}

func (d *draft) Drop(off int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	off = max(off, d.Written())
	d.cut(off, nil)
	for _, span := range d.ahead {
		if span.From = max(span.From, off); span.Len() > 0 {
			d.runs.remove(span)
			d.have -= span.Len()
		}
	}
	d.ahead.Remove(cache.Span{From: off, To: math.MaxInt64})
}

func (d *draft) Pieces() cache.Spans {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := slices.Clone(d.ahead)
	all.Add(cache.Span{To: d.Written()})
	return all
}

// Check checks all runs that have any of the bytes.
func (d *draft) Check(off, n int64) int64 {
	at := off
	for at >= 0 && at-off < n {
		end, unchecked := d.checked(at, n-(at-off))
		at = end
		if unchecked == nil || !d.check(*unchecked) {
			break
		}
	}
	return max(0, min(n, at-off))
}

// checked returns where the bytes from off on that are checked end, and the run
// there that is not; nil if nothing is there, or n bytes are checked.
func (d *draft) checked(off, n int64) (end int64, unchecked *run) {
	d.mu.Lock()
	defer d.mu.Unlock()
	at := max(off, d.Written())
	if !d.runs.unchecked() {
		return d.ahead.End(at), nil
	}
	for at-off < n {
		r, ok := d.runs.at(at)
		if !ok {
			break
		}
		if !r.checked {
			return at, &r
		}
		at = r.To
	}
	return at, nil
}

// hasUnchecked reports whether there are pieces that have to be read before
// others may read them.
func (d *draft) hasUnchecked() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.runs.unchecked()
}

// check checks a run and reports whether it is what was written. If not, it is
// dropped.
func (d *draft) check(r run) bool {
	buffer := pieces.Get().(*[pieceSize]byte)
	defer pieces.Put(buffer)
	if _, err := d.read(r, buffer); err != nil {
		if !errors.Is(err, fs.ErrClosed) {
			d.drop(r, err)
		}
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.runs.markChecked(r)
	return true
}

// ReadAt ends before a hole.
func (d *draft) ReadAt(p []byte, off int64) (int, error) { return d.readAt(d.file, p, off) }

func (d *draft) readAt(file io.ReaderAt, p []byte, off int64) (int, error) {
	there := d.there(p, off)
	n, err := file.ReadAt(there, off)
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

// there returns the part of p that can be filled with bytes from off on.
func (d *draft) there(p []byte, off int64) []byte {
	end := d.Written()
	if d.sparse.Load() {
		d.mu.Lock()
		end = d.ahead.End(max(off, d.Written()))
		d.mu.Unlock()
	}
	return p[:max(0, min(int64(len(p)), end-off))]
}
