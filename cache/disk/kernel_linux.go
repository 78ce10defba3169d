package disk

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// The errors for a lack of space, and for a disk or file system that can't
// return what was written.
var (
	noRoomErrors = []error{unix.ENOSPC, unix.EDQUOT, unix.EFBIG}
	damageErrors = []error{unix.EIO, unix.EBADMSG, unix.EUCLEAN, unix.ENODATA}
)

// sendTo has the kernel send at most n of the next bytes of a file to a socket.
func sendTo(socket uintptr, file *os.File, n int) (int, error) {
	defer runtime.KeepAlive(file)
	return unix.Sendfile(int(socket), int(file.Fd()), nil, n)
}

// avoidPageCache keeps a file that is read only once from displacing what
// clients read from the page cache. It is advice that a kernel may ignore.
func avoidPageCache(file *os.File) (over func()) {
	return func() { _ = unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED) }
}
