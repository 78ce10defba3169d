package disk

import (
	"errors"
	"fmt"
	"io"
)

// offsetReader reads an open file at an offset of its own, because others move
// the file's.
type offsetReader struct {
	file interface {
		io.ReaderAt
		io.Closer
	}
	size, offset int64
}

func (a *offsetReader) Read(p []byte) (int, error) {
	n, err := a.ReadAt(p, a.offset)
	a.offset += int64(n)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil // more may be written
	}
	return n, err
}

func (a *offsetReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += a.offset
	case io.SeekEnd:
		offset += a.size
	}
	if offset < 0 {
		return 0, fmt.Errorf("seek to %d", offset)
	}
	a.offset = offset
	return offset, nil
}

func (a *offsetReader) ReadAt(p []byte, off int64) (int, error) { return a.file.ReadAt(p, off) }
func (a *offsetReader) Close() error                            { return a.file.Close() }
func (a *offsetReader) Size() int64                             { return a.size }
