package disk

import (
	"os"

	"golang.org/x/sys/unix"
)

// Errors by which this kernel says that there is no room, and that a disk or a
// file system can't give back what it was given.
var (
	noRoomErrors = []error{unix.ENOSPC, unix.EDQUOT, unix.EFBIG}
	lostErrors   = []error{unix.EIO, unix.EBADMSG, unix.EINTEGRITY}
)

// passing keeps what is read once from pushing what clients ask for out of the
// kernel's memory. It is advice: a kernel that does not take it loses nothing.
func passing(file *os.File) (over func()) {
	return func() { _ = unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED) }
}
