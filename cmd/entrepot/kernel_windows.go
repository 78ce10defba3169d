package main

import "golang.org/x/sys/windows"

// How the system refuses to listen on an address.
const (
	errInUse         = windows.WSAEADDRINUSE
	errMayNotListen  = windows.WSAEACCES
	errNoSuchAddress = windows.WSAEADDRNOTAVAIL
)

// filesLimit is how many files this process may have open. There is no such
// limit here; each takes memory, though, and so does each connection.
func filesLimit() uint64 { return 64 << 10 }
