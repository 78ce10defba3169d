package proxy

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// isSilent says whether the other host answers the kernel no more.
func isSilent(conn *net.TCPConn, most silences) (silent bool) {
	withSocket(conn, func(fd int) {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return
		}
		last := time.Duration(info.Last_ack_recv) * time.Millisecond
		silent = info.Unacked > 0 && last >= most.sent || info.Probes > 0 && last >= most.probed
	})
	return silent
}

// giveUp has the kernel end the connection when it would try again.
func giveUp(conn *net.TCPConn, most silences) {
	withSocket(conn, func(fd int) {
		// A kernel without this option tries for a quarter of an hour.
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(most.sent.Milliseconds()))
	})
}

func withSocket(conn *net.TCPConn, do func(fd int)) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return // it is closed
	}
	_ = raw.Control(func(fd uintptr) { do(int(fd)) })
}
