package proxy

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// silentTimeout is how long a client's host may acknowledge nothing of what
	// was sent. A link that is down for a minute loses no pull.
	silentTimeout = 2 * time.Minute
	// silentProbesTimeout is the same while the client's buffers are full, and
	// the kernel asks now and then if they still are: every two minutes at last
	// (TCP_RTO_MAX), and its questions may be lost, too.
	silentProbesTimeout = 5 * time.Minute
)

// isSilent says whether the other host answers the kernel no more.
func isSilent(conn *net.TCPConn) (silent bool) {
	withSocket(conn, func(fd int) {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return
		}
		last := time.Duration(info.Last_ack_recv) * time.Millisecond
		silent = info.Unacked > 0 && last >= silentTimeout || info.Probes > 0 && last >= silentProbesTimeout
	})
	return silent
}

// giveUp has the kernel end the connection when it would try again.
func giveUp(conn *net.TCPConn) {
	withSocket(conn, func(fd int) {
		// A kernel without this option tries for a quarter of an hour.
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(silentTimeout.Milliseconds()))
	})
}

func withSocket(conn *net.TCPConn, do func(fd int)) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return // it is closed
	}
	_ = raw.Control(func(fd uintptr) { do(int(fd)) })
}
