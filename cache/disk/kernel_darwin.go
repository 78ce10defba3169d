package disk

import (
	"os"

	"golang.org/x/sys/unix"
)

// Errors by which this kernel says that there is no room, and that a disk or a
// file system can't give back what it was given.
var (
	noRoomErrors = []error{unix.ENOSPC, unix.EDQUOT, unix.EFBIG}
	lostErrors   = []error{unix.EIO, unix.EBADMSG}
)

// passing keeps what is read once from pushing what clients ask for out of the
// kernel's memory. This kernel is told before: what it reads then it does not
// keep.
func passing(file *os.File) (over func()) {
	_, _ = unix.FcntlInt(file.Fd(), unix.F_NOCACHE, 1) // advice: without it nothing is lost
	return func() {}
}
