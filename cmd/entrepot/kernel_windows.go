package main

import "golang.org/x/sys/windows"

// The errors of the system for an address that can't be listened on.
const (
	errInUse              = windows.WSAEADDRINUSE
	errNotPermitted       = windows.WSAEACCES
	errAddressUnavailable = windows.WSAEADDRNOTAVAIL
)
