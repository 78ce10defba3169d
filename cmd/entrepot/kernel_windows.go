package main

import "golang.org/x/sys/windows"

// The errors of the system for an address that can't be listened on.
const (
	errInUse              = windows.WSAEADDRINUSE
	errNotPermitted       = windows.WSAEACCES
	errAddressUnavailable = windows.WSAEADDRNOTAVAIL
)

// openFileLimit returns how many files this process may have open. Windows has
// no such limit, but each file takes memory, and so does each connection.
func openFileLimit() uint64 { return 64 << 10 }
