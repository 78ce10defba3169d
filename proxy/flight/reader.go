package flight

import (
	"fmt"
	"io"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/upstream"
)

// reader is the position of one client in a spool. It must be used by one
// goroutine at a time.
type reader struct {
	s       *spool
	off     int64 // guarded by s.mu
	dropped bool  // too slow: the writer no longer waits for it; guarded by s.mu
	file    cache.Blob
	cursor  cache.Cursor // over file
}

// reader returns a reader at off. The caller holds the spool.
func (s *spool) reader(off int64) *reader {
	r := &reader{s: s, off: off}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readers[r] = struct{}{}
	return r
}

// next writes at most n of the bytes at the reader's position to w. The caller
// knows that they are available.
func (r *reader) next(w io.Writer, n int64) (int64, error) {
	r.s.mu.Lock()
	onDisk, off := r.s.onDisk, r.off
	var piece []byte
	if off >= onDisk {
		piece = r.s.window.at(off)
		if piece == nil {
			r.s.mu.Unlock()
			return 0, ErrReaderTooSlow
		}
		piece = piece[:min(n, int64(len(piece)))]
	}
	r.s.mu.Unlock()

	var written int64
	var err error
	if piece != nil {
		var wrote int
		wrote, err = w.Write(piece)
		written = int64(wrote)
	} else {
		written, err = r.fromDisk(w, off, min(n, onDisk-off))
	}
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.off += written
	r.s.wakeWriter()
	return written, err
}

func (r *reader) fromDisk(w io.Writer, off, n int64) (int64, error) {
	if r.file == nil {
		file, err := r.s.draft.Reader()
		if err != nil {
			return 0, fmt.Errorf("%w: read the draft: %w", upstream.ErrUnavailable, err)
		}
		r.file, r.cursor = file, cache.NewCursor(file)
	}
	return r.cursor.Copy(w, off, n)
}

func (r *reader) close() error {
	r.s.mu.Lock()
	delete(r.s.readers, r)
	r.s.wakeWriter()
	r.s.mu.Unlock()
	if r.file != nil {
		return r.file.Close()
	}
	return nil
}
