//go:build !windows

package main

import (
	"os"
	"syscall"
)

// The errors of the kernel for an address that can't be listened on, and for one
// on which nobody listens.
const (
	errRefused            = syscall.ECONNREFUSED
	errInUse              = syscall.EADDRINUSE
	errNotPermitted       = syscall.EACCES
	errAddressUnavailable = syscall.EADDRNOTAVAIL
)

// withSocketMode makes a socket that its owner and group may connect to. It has
// that mode from the first moment on. The mask is the process's, so nothing else
// may make files meanwhile.
func withSocketMode(listen func() error) error {
	defer syscall.Umask(syscall.Umask(0o117))
	return listen()
}

// lockFolder waits until no other process has the folder locked.
func lockFolder(path string) (unlock func(), err error) {
	folder, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(folder.Fd()), syscall.LOCK_EX); err != nil {
		folder.Close()
		return nil, err
	}
	return func() { folder.Close() }, nil
}
