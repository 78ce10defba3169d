package upstream

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// limitUnacknowledged has the kernel give a connection up if what was sent on it
// is not acknowledged for that long. Its default is a quarter of an hour.
func limitUnacknowledged(c syscall.RawConn, most time.Duration) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(most.Milliseconds()))
	})
	if err != nil {
		return err
	}
	return failed
}
