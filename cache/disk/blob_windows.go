package disk

import (
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/entrepot/entrepot/cache/disk/files"
)

// blob is a file open for reading. It has none of the methods for sending it
// with TransmitFile: Windows for desktops only runs two of those at once and
// lets everybody else wait, slow clients first. It does not use the file's
// offset either, because on Windows even ReadAt moves it, and reopened files
// share it.
type blob struct {
	offsetReader
	file files.File
}

func newBlob(file files.File, size int64) *blob {
	return &blob{offsetReader{file: file, size: size}, file}
}

// Read maps read errors of the disk to EIO, which the code that sends a blob
// checks for, as if the kernel had sent it.
func (b *blob) Read(p []byte) (int, error) {
	n, err := b.offsetReader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && isReadDamage(err) {
		err = fmt.Errorf("%w: %w", syscall.EIO, err)
	}
	return n, wrapUnreadable(err)
}
