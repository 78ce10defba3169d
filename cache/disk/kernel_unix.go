//go:build !windows

package disk

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/entrepot/entrepot/cache/disk/files"
)

// The functions of the system that differ between Unix and Windows; see also
// kernel_windows.go.

// openShared opens a file that may be renamed or removed while it is open.
func openShared(path string, flag int) (*os.File, error) { return os.OpenFile(path, flag, 0o600) }

// openPublished opens a published file. It does not follow a symbolic link.
func openPublished(path string) (*os.File, error) {
	return openShared(path, os.O_RDONLY|unix.O_NOFOLLOW)
}

// createShared creates a file with a unique name, like os.CreateTemp.
func createShared(folder, pattern string) (*os.File, error) { return os.CreateTemp(folder, pattern) }

// rename replaces a file that may be open.
func rename(from, to string) error { return os.Rename(from, to) }

// syncFolder makes the names in a folder durable.
func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// reopen duplicates an open file, even if its name is gone. Both share one
// offset.
func reopen(file *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate the file: %w", err)
	}
	return os.NewFile(uintptr(fd), file.Name()), nil
}

// tryLock locks a file until it is closed. It returns false if another process
// has locked it.
func tryLock(file *os.File) (locked bool, err error) {
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

func space(folder string) (files.Space, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(folder, &stat); err != nil {
		return files.Space{}, fmt.Errorf("free space in %s: %w", folder, err)
	}
	return files.Space{
		// If blocks reserved for root are in use, Bavail is negative.
		Bytes: int64(stat.Blocks) * int64(stat.Bsize), FreeBytes: max(0, int64(stat.Bavail)) * int64(stat.Bsize),
		Inodes: int64(stat.Files), FreeInodes: max(0, int64(stat.Ffree)),
	}, nil
}

func identify(file *os.File) (files.Identity, error) {
	var s unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &s); err != nil {
		return files.Identity{}, fmt.Errorf("stat: %w", err)
	}
	seconds, nanos := s.Ctim.Unix()
	return files.Identity{Inode: s.Ino, Size: s.Size, Seconds: seconds, Nanos: nanos}, nil
}

func setAttribute(file *os.File, name string, value []byte) error {
	return unix.Fsetxattr(int(file.Fd()), name, value, 0)
}

// getAttribute does not follow symbolic links.
func getAttribute(path, name string, into []byte) (n int, err error) {
	return unix.Lgetxattr(path, name, into)
}
