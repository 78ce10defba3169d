package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/entrepot/entrepot/cache/disk/files"
)

// The functions of the system that differ between Unix and Windows;
// kernel_unix.go documents them.
//
// On Windows, a file that os.OpenFile has opened can't be renamed or removed. A
// file opened through an os.Root can, and Root.Rename can replace an open file
// (Go 1.26, internal/syscall/windows, at_windows.go). So every file is opened
// like that.

func openShared(path string, flag int) (*os.File, error) {
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.OpenFile(filepath.Base(path), flag, 0o600)
}

// openPublished may follow a link, but not out of the folder.
func openPublished(path string) (*os.File, error) { return openShared(path, os.O_RDONLY) }

func createShared(folder, pattern string) (*os.File, error) {
	before, after, _ := strings.Cut(pattern, "*")
	for {
		name := filepath.Join(folder, before+strconv.FormatUint(rand.Uint64(), 36)+after)
		file, err := openShared(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
		if !errors.Is(err, fs.ErrExist) {
			return file, err
		}
	}
}

func rename(from, to string) error {
	from, err := filepath.Abs(from)
	if err != nil {
		return err
	}
	if to, err = filepath.Abs(to); err != nil {
		return err
	}
	above := filepath.Dir(from)
	for !strings.HasPrefix(to, strings.TrimSuffix(above, `\`)+`\`) {
		up := filepath.Dir(above)
		if up == above {
			return &os.LinkError{Op: "rename", Old: from, New: to, Err: windows.ERROR_NOT_SAME_DEVICE}
		}
		above = up
	}
	root, err := os.OpenRoot(above)
	if err != nil {
		return err
	}
	defer root.Close()
	within := func(path string) string { return strings.TrimLeft(path[len(above):], `\`) }
	return root.Rename(within(from), within(to))
}

// syncFolder does nothing: NTFS has a journal for names, and flushing a folder
// takes an administrator's rights.
func syncFolder(string) error { return nil }

func reopen(file *os.File) (*os.File, error) {
	var handle windows.Handle
	self := windows.CurrentProcess()
	if err := windows.DuplicateHandle(self, windows.Handle(file.Fd()), self, &handle, 0, false, windows.DUPLICATE_SAME_ACCESS); err != nil {
		return nil, fmt.Errorf("duplicate the file: %w", err)
	}
	return os.NewFile(uintptr(handle), file.Name()), nil
}

// tryLock locks a byte far beyond the end of the file, because a locked byte
// can't be read by others.
func tryLock(file *os.File) (locked bool, err error) {
	const flags = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	err = windows.LockFileEx(windows.Handle(file.Fd()), flags, 0, 1, 0, &windows.Overlapped{OffsetHigh: 1})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return false, nil
	}
	return err == nil, err
}

func space(folder string) (files.Space, error) {
	name, err := windows.UTF16PtrFromString(folder)
	if err != nil {
		return files.Space{}, fmt.Errorf("free space in %s: %w", folder, err)
	}
	var allowed, size, left uint64
	if err := windows.GetDiskFreeSpaceEx(name, &allowed, &size, &left); err != nil {
		return files.Space{}, fmt.Errorf("free space in %s: %w", folder, err)
	}
	return files.Space{Bytes: int64(size), FreeBytes: int64(allowed)}, nil
}

// identify uses the time of the last change of any kind, like ctime. FAT only
// has the time of the last write.
func identify(file *os.File) (files.Identity, error) {
	handle := windows.Handle(file.Fd())
	var info windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(handle, &info); err != nil {
		return files.Identity{}, fmt.Errorf("stat: %w", err)
	}
	var times struct { // FILE_BASIC_INFO
		creation, access, write, change int64
		attributes                      uint32
	}
	if err := windows.GetFileInformationByHandleEx(handle, windows.FileBasicInfo, (*byte)(unsafe.Pointer(&times)), uint32(unsafe.Sizeof(times))); err != nil {
		return files.Identity{}, fmt.Errorf("stat: %w", err)
	}
	if times.change == 0 {
		times.change = times.write
	}
	// Hundreds of nanoseconds since 1601.
	changed := windows.Filetime{LowDateTime: uint32(times.change), HighDateTime: uint32(times.change >> 32)}
	at := time.Unix(0, changed.Nanoseconds())
	return files.Identity{
		Inode:   uint64(info.FileIndexHigh)<<32 | uint64(info.FileIndexLow),
		Size:    int64(info.FileSizeHigh)<<32 | int64(info.FileSizeLow),
		Seconds: at.Unix(), Nanos: int64(at.Nanosecond()),
	}, nil
}

// Extended attributes are not supported here, so records store the sizes.
func setAttribute(*os.File, string, []byte) error          { return errors.ErrUnsupported }
func getAttribute(string, string, []byte) (n int, _ error) { return 0, errors.ErrUnsupported }

// The errors for a lack of space, and for a disk or file system that can't
// return what was written. Other systems' errors are included.
var (
	noRoomErrors = []error{
		windows.ERROR_DISK_FULL, windows.ERROR_HANDLE_DISK_FULL, windows.ERROR_DISK_QUOTA_EXCEEDED, windows.ERROR_FILE_TOO_LARGE,
		syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG,
	}
	damageErrors = []error{
		windows.ERROR_CRC, windows.ERROR_DATA_CHECKSUM_ERROR, windows.ERROR_SECTOR_NOT_FOUND, windows.ERROR_READ_FAULT,
		windows.ERROR_IO_DEVICE, windows.ERROR_FILE_CORRUPT, windows.ERROR_DISK_CORRUPT,
		syscall.EIO, syscall.EBADMSG, syscall.EUCLEAN, syscall.ENODATA,
	}
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

// avoidPageCache does nothing: Windows has no such advice for an open file.
func avoidPageCache(*os.File) (over func()) { return func() {} }
