package disk

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/entrepot/entrepot/cache/disk/files"
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

// opensFromMemory says whether a file system opens files without asking a disk or
// a server, once openat2(2) has found their names in memory.
func opensFromMemory(folder string) bool {
	var stat unix.Statfs_t
	if unix.Statfs(folder, &stat) != nil {
		return false
	}
	switch uint32(stat.Type) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.TMPFS_MAGIC:
		return true
	}
	return false
}

// resolveCached is RESOLVE_CACHED of openat2(2).
const resolveCached = 0x20

// openFromMemory needs Linux 5.12. Older ones, and sandboxes, refuse the call.
// O_NONBLOCK means nothing for a file, and something else of that name, as a
// pipe, is not waited for either.
func openFromMemory(path string) (*os.File, bool) {
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK, Resolve: resolveCached}
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &how)
	if err != nil {
		return nil, false
	}
	_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFL, 0) // else package os takes it for something to poll
	return os.NewFile(uintptr(fd), path), true
}

// identifyFromMemory asks statx(2) not to ask a server either. What it says of a
// file that is open is in memory.
func identifyFromMemory(file *os.File) (files.Identity, bool) {
	defer runtime.KeepAlive(file)
	const wanted = unix.STATX_INO | unix.STATX_SIZE | unix.STATX_CTIME
	var s unix.Statx_t
	err := unix.Statx(int(file.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, wanted, &s)
	if err != nil || s.Mask&wanted != wanted {
		return files.Identity{}, false
	}
	return files.Identity{Inode: s.Ino, Size: int64(s.Size), Seconds: s.Ctime.Sec, Nanos: int64(s.Ctime.Nsec)}, true
}

// avoidPageCache keeps a file that is read only once from displacing what
// clients read from the page cache. It is advice that a kernel may ignore.
func avoidPageCache(file *os.File) (over func()) {
	return func() { _ = unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED) }
}
