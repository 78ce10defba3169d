//go:build !windows

package disk

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Inodes returns how many files the file system of a folder can hold, and how
// many more. A total of 0 means that it does not tell, or has no bound.
func Inodes(folder string) (total, free int64, err error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(folder, &stat); err != nil {
		return 0, 0, fmt.Errorf("free inodes in %s: %w", folder, err)
	}
	return int64(stat.Files), max(0, int64(stat.Ffree)), nil
}
