package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
)

// A sender is a file that the kernel sends to a socket, in calls that wait for
// the disk and not for the socket.
type sender interface {
	SendTo(socket uintptr, n int) (int, error)
}

// maxSend is the most that one call sends, in bytes.
const maxSend = 4 << 20

// sendFile sends what is limited, if it is a file. Package net would do the
// same, and would wait for a slow client in the midst of it. Here that is done
// between the calls, so that a place at the disk is held for no longer than the
// disk takes. It returns errors.ErrUnsupported if it has sent nothing and
// another way has to be taken.
func sendFile(conn *net.TCPConn, from *io.LimitedReader) (sent int64, err error) {
	file, ok := from.R.(sender)
	if !ok {
		return 0, errors.ErrUnsupported
	}
	socket, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	err = socket.Write(func(fd uintptr) (done bool) {
		for from.N > 0 {
			var n int
			n, failed = file.SendTo(fd, int(min(from.N, maxSend)))
			if n > 0 {
				sent += int64(n)
				from.N -= int64(n)
			}
			switch {
			case errors.Is(failed, syscall.EINTR):
			case errors.Is(failed, syscall.EAGAIN):
				failed = nil
				return false // called again when the client has received some
			case failed != nil || n == 0:
				return true
			}
		}
		return true
	})
	switch {
	case err != nil:
		return sent, err
	case errors.Is(failed, errors.ErrUnsupported), sent == 0 && isNoSendfile(failed):
		return sent, errors.ErrUnsupported
	case failed != nil:
		return sent, os.NewSyscallError("sendfile", failed)
	}
	return sent, nil
}

// isNoSendfile says whether the kernel can't send this file, as some file
// systems can't.
func isNoSendfile(err error) bool {
	return errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.EOPNOTSUPP)
}
