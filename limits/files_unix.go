//go:build !windows

package limits

import (
	"math"

	"golang.org/x/sys/unix"
)

// openFiles is the soft limit, which Go raises to the hard one.
func openFiles() int64 {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur >= math.MaxInt64 {
		return 0
	}
	return int64(limit.Cur)
}
