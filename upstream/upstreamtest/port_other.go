//go:build !unix

package upstreamtest

import "net"

// hold keeps a port from everyone else, where that is known how to.
func hold(net.Addr) (release func()) { return func() {} }
