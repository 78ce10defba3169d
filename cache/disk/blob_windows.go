package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// blob is a file open for reading. It shows nothing by which the system could
// send it by itself: of what TransmitFile sends, Windows for desktops does two
// at once and lets everybody else wait, slow clients first. And it leaves the
// file's position alone, which even ReadAt moves here, and which is that of
// whoever has opened the file again.
type blob struct{ apart }

func newBlob(file *os.File, size int64) *blob { return &blob{apart{file: file, size: size}} }

// Read says what a kernel that sends by itself says of a disk that has lost
// something: who writes a blob out asks for that.
func (b *blob) Read(p []byte) (int, error) {
	n, err := b.apart.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && unreadable(err) {
		err = fmt.Errorf("%w: %w", syscall.EIO, err)
	}
	return n, err
}
