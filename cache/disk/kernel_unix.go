//go:build !windows

package disk

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// What this package asks of a kernel that is some Unix; kernel_windows.go has
// the same for the other.

// openShared opens a file that others may rename or remove meanwhile.
func openShared(path string, flag int) (*os.File, error) { return os.OpenFile(path, flag, 0o600) }

// openPublished opens a published file, and no symbolic link.
func openPublished(path string) (*os.File, error) {
	return openShared(path, os.O_RDONLY|unix.O_NOFOLLOW)
}

// createShared makes a file with a name that nothing has, as os.CreateTemp does.
func createShared(folder, pattern string) (*os.File, error) { return os.CreateTemp(folder, pattern) }

// rename puts a file in the place of another that may be open.
func rename(from, to string) error { return os.Rename(from, to) }

// syncFolder makes the names in a folder durable.
func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// again opens an open file once more, whatever has become of its name. Both
// have one position.
func again(file *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open again: %w", err)
	}
	return os.NewFile(uintptr(fd), file.Name()), nil
}

// tryLock locks a file until it is closed, and says no where another process
// has it locked.
func tryLock(file *os.File) (locked bool, err error) {
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

// Space is the size of the file system that a folder is on, and what of it
// this user may still write, in bytes.
func Space(folder string) (total, free int64, err error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(folder, &stat); err != nil {
		return 0, 0, fmt.Errorf("room in %s: %w", folder, err)
	}
	// What is kept for root may be in use: then there is less than none.
	return int64(stat.Blocks) * int64(stat.Bsize), max(0, int64(stat.Bavail)) * int64(stat.Bsize), nil
}

func identify(file *os.File) (identity, error) {
	var s unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &s); err != nil {
		return identity{}, fmt.Errorf("stat: %w", err)
	}
	sec, nanos := s.Ctim.Unix()
	return identity{s.Ino, s.Size, sec, nanos}, nil
}

func setAttribute(file *os.File, name string, value []byte) error {
	return unix.Fsetxattr(int(file.Fd()), name, value, 0)
}

// getAttribute reads no symbolic link's, and not that of what it points to.
func getAttribute(path, name string, into []byte) (n int, err error) {
	return unix.Lgetxattr(path, name, into)
}
