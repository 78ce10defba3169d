//go:build !windows

package main

import (
	"math"
	"syscall"

	"golang.org/x/sys/unix"
)

// How the kernel refuses to listen on an address.
const (
	errInUse         = syscall.EADDRINUSE
	errMayNotListen  = syscall.EACCES
	errNoSuchAddress = syscall.EADDRNOTAVAIL
)

// filesLimit is how many files this process may have open, 0 where the kernel
// does not tell.
func filesLimit() uint64 {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return min(uint64(limit.Cur), math.MaxInt64)
}
