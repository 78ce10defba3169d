package proxy

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// isSilent says whether the other host answers the kernel no more. It is not known
// if the connection has ended. One question without an answer is none: the answer
// may be on its way.
func isSilent(conn *net.TCPConn, most silences) (silent, known bool) {
	withSocket(conn, func(fd int) {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return
		}
		known = info.State != unix.BPF_TCP_CLOSE
		last := time.Duration(info.Last_ack_recv) * time.Millisecond
		silent = info.Unacked > 0 && last >= most.sent || info.Probes > 1 && last >= most.probed
	})
	return silent, known
}

// giveUp has the kernel end the connection when it would try again.
func giveUp(conn *net.TCPConn, most silences) { setUserTimeout(conn, most.sent) }

// takeBack is for a host that is there after all. Otherwise the kernel would end
// the connection as soon as the client reads nothing for a while.
func takeBack(conn *net.TCPConn) { setUserTimeout(conn, 0) }

func setUserTimeout(conn *net.TCPConn, most time.Duration) {
	withSocket(conn, func(fd int) {
		// A kernel without this option tries for a quarter of an hour.
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(most.Milliseconds()))
	})
}

func withSocket(conn *net.TCPConn, do func(fd int)) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return // it is closed
	}
	_ = raw.Control(func(fd uintptr) { do(int(fd)) })
}
