package disk

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/entrepot/entrepot/cache/disk/files"
)

// The errors for a lack of space, and for a disk or file system that can't
// return what was written.
var (
	noRoomErrors = []error{unix.ENOSPC, unix.EDQUOT, unix.EFBIG}
	damageErrors = []error{unix.EIO, unix.EBADMSG, unix.EINTEGRITY}
)

// sendTo leaves the sending to package net, or to reads.
func sendTo(uintptr, *os.File, int) (int, error) { return 0, errors.ErrUnsupported }

// isResident knows nothing.
func isResident(*os.File, int64, int64) bool { return true }

// opensFromMemory knows nothing.
func opensFromMemory(string) bool { return false }

// openFromMemory knows nothing.
func openFromMemory(string) (*os.File, bool) { return nil, false }

// identifyFromMemory knows nothing.
func identifyFromMemory(*os.File) (files.Identity, bool) { return files.Identity{}, false }

// avoidPageCache keeps a file that is read only once from displacing what
// clients read from the page cache. It is advice that a kernel may ignore.
func avoidPageCache(file *os.File) (over func()) {
	return func() { _ = unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED) }
}
