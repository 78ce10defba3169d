package cache

import "io"

// Cursor copies parts of one open Blob. It remembers where the file stands, so
// that parts in order cost no seek. It is used by one goroutine.
type Cursor struct {
	file Blob
	at   int64 // where file stands; -1 where that is not known
}

// NewCursor returns a cursor over a file that stands at its start.
func NewCursor(file Blob) Cursor { return Cursor{file: file} }

// Copy writes the n bytes at off to w. The source that w sees is an
// *io.LimitedReader over the file itself, so that w can leave the work to the
// kernel. Fewer bytes than n are an error.
func (c *Cursor) Copy(w io.Writer, off, n int64) (int64, error) {
	if c.at != off {
		if _, err := c.file.Seek(off, io.SeekStart); err != nil {
			return 0, err
		}
	}
	written, err := io.Copy(w, &io.LimitedReader{R: c.file, N: n})
	c.at = off + written
	if err == nil && written < n {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		c.at = -1 // more may have been read than was written
	}
	return written, err
}
