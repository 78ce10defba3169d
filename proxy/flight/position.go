package flight

import (
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/upstream"
)

// position is the position of one reader in a spool. While it reads, a download
// without disk space waits for it.
type position struct {
	s      *spool
	f      *Flight // the spool's, if the position holds it
	file   cache.Blob
	cursor cache.Cursor // over file

	// What follows is guarded by s.mu.
	off      int64
	dropped  bool          // too slow: the writer no longer waits for it
	next     *position     // where it goes then
	waited   time.Duration // by the writer
	waitedAt int64         // where it was then
	held     time.Duration // by a further download, for the case that it needs that
}

// begin begins to read at off.
func (p *position) begin(off int64) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.off = off
	p.dropped = p.dropped && p.next != nil
	p.s.readers[p] = struct{}{}
}

// end ends what begin began.
func (p *position) end() {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	delete(p.s.readers, p)
	p.s.wakeWriter()
}

// copy writes at most n of the bytes at the position to w. The caller knows that
// they are available.
func (p *position) copy(w io.Writer, n int64) (int64, error) {
	p.s.mu.Lock()
	off := p.off
	inMemory := p.s.inMemory && off >= p.s.window.onDisk
	var piece []byte
	if inMemory {
		piece = p.s.window.at(off)
		if piece == nil {
			p.s.mu.Unlock()
			return 0, ErrReaderTooSlow
		}
		piece = piece[:min(n, int64(len(piece)))]
	} else if p.s.inMemory {
		n = min(n, p.s.window.onDisk-off)
	}
	p.s.mu.Unlock()

	var written int64
	var err error
	if inMemory {
		var wrote int
		wrote, err = w.Write(piece)
		written = int64(wrote)
	} else {
		written, err = p.fromDisk(w, off, n)
	}
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.off += written
	p.s.wakeWriter()
	return written, err
}

// ErrUnreadable means that the disk can't return what a download has stored.
// The download goes on.
var ErrUnreadable = fmt.Errorf("%w: what was received of it can't be read back", upstream.ErrUnavailable)

func (p *position) fromDisk(w io.Writer, off, n int64) (int64, error) {
	if p.file == nil {
		file, err := p.s.draft.Reader()
		if err != nil {
			return 0, fmt.Errorf("%w: %w", ErrUnreadable, err)
		}
		p.file, p.cursor = file, cache.NewCursor(file)
	}
	written, err := p.cursor.Copy(w, off, n)
	if errors.Is(err, cache.ErrUnreadable) || errors.Is(err, cache.ErrDown) || errors.Is(err, syscall.EIO) {
		err = fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	return written, err
}

// close ends what the position holds, and what it was moved to.
func (p *position) close() (err error) {
	p.s.mu.Lock()
	next := p.next
	p.next = nil
	p.s.mu.Unlock()
	if next != nil {
		next.end()
		err = next.close()
	}
	if p.file != nil {
		err = errors.Join(err, p.file.Close())
	}
	if p.f != nil {
		p.f.Release()
	}
	return err
}
