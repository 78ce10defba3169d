package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// apart reads an open file at a position of its own, because others move the
// file's.
type apart struct {
	file     *os.File
	size, at int64
}

func (a *apart) Read(p []byte) (int, error) {
	n, err := a.ReadAt(p, a.at)
	a.at += int64(n)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil // more may be written
	}
	return n, err
}

func (a *apart) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += a.at
	case io.SeekEnd:
		offset += a.size
	}
	if offset < 0 {
		return 0, fmt.Errorf("seek to %d", offset)
	}
	a.at = offset
	return offset, nil
}

func (a *apart) ReadAt(p []byte, off int64) (int, error) { return a.file.ReadAt(p, off) }
func (a *apart) Close() error                            { return a.file.Close() }
func (a *apart) Size() int64                             { return a.size }
