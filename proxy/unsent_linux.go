package proxy

import (
	"net"

	"golang.org/x/sys/unix"
)

// maxUnsent is how many bytes the kernel takes for one of many connections
// beyond what is on the wire.
const maxUnsent = 256 << 10

func boundUnsent(c net.Conn) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return // it is closed already
	}
	// A kernel that does not know it only takes more.
	_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, maxUnsent) })
}
