package proxy

import (
	"net"

	"golang.org/x/sys/unix"
)

// maxUnsent is how many bytes the kernel buffers for one of many connections,
// in addition to what is on the wire.
const maxUnsent = 256 << 10

func limitUnsent(c net.Conn) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return // the connection is closed
	}
	// A kernel without this option only buffers more.
	_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, maxUnsent) })
}
