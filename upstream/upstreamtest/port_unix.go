//go:build unix

package upstreamtest

import (
	"net"
	"sync"
	"syscall"
)

// hold keeps a port from everyone else, and refuses connections to it: nobody
// listens. Without it another test's registry may get the port of one that was
// stopped, and answer in its name. It returns what gives the port back.
func hold(address net.Addr) (release func()) {
	at, ok := address.(*net.TCPAddr)
	if !ok || at.IP.To4() == nil {
		return func() {}
	}
	// Not with package net, which has no way to bind and not to listen.
	syscall.ForkLock.RLock()
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(socket)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return func() {}
	}
	release = sync.OnceFunc(func() { syscall.Close(socket) })
	err = syscall.SetsockoptInt(socket, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1) // connections of before are still closing
	if err == nil {
		err = syscall.Bind(socket, &syscall.SockaddrInet4{Port: at.Port, Addr: [4]byte(at.IP.To4())})
	}
	if err != nil {
		release()
	}
	return release
}
