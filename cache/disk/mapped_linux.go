package disk

import "golang.org/x/sys/unix"

// unmapPages lets the pages of a file go that is mapped for reading.
func unmapPages(data uintptr, size int64) {
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, data, uintptr(size), unix.MADV_DONTNEED) // only advice
}
