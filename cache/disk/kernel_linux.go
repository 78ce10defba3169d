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

// isResident asks cachestat(2), of Linux 6.5. Older ones don't tell.
func isResident(file *os.File, off, n int64) bool {
	defer runtime.KeepAlive(file)
	part, is := unix.CachestatRange{Off: uint64(off), Len: uint64(n)}, unix.Cachestat_t{}
	if err := unix.Cachestat(uint(file.Fd()), &part, &is, 0); err != nil {
		return true
	}
	page := int64(os.Getpagesize())
	return is.Cache >= uint64((off+n-1)/page-off/page+1)
}

// avoidPageCache keeps a file that is read only once from displacing what
// clients read from the page cache. It is advice that a kernel may ignore.
func avoidPageCache(file *os.File) (over func()) {
	return func() { _ = unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED) }
}
