//go:build !windows

package main

import "syscall"

// The errors of the kernel for an address that can't be listened on.
const (
	errInUse              = syscall.EADDRINUSE
	errNotPermitted       = syscall.EACCES
	errAddressUnavailable = syscall.EADDRNOTAVAIL
)
