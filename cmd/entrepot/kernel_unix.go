//go:build !windows

package main

import (
	"math"
	"syscall"

	"golang.org/x/sys/unix"
)

// The errors of the kernel for an address that can't be listened on.
const (
	errInUse              = syscall.EADDRINUSE
	errNotPermitted       = syscall.EACCES
	errAddressUnavailable = syscall.EADDRNOTAVAIL
)

// openFileLimit returns how many files this process may have open, or 0 if that
// is not known.
func openFileLimit() uint64 {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return min(uint64(limit.Cur), math.MaxInt64)
}
