//go:build unix

package proxy

import (
	"errors"
	"syscall"
)

// writeOnce writes to a socket that does not block. What it can't write now is
// not an error.
func writeOnce(fd uintptr, b []byte) (int, error) {
	for {
		n, err := syscall.Write(int(fd), b)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EAGAIN):
			return 0, nil
		default:
			return max(n, 0), err
		}
	}
}
