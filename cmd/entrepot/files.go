package main

import "golang.org/x/sys/unix"

// filesShare is a quarter of the files that this process may have open. A
// quarter each is for clients' connections, for blobs that are sent and for
// downloads; the last is for what else there is: connections to upstreams, the
// records, the log. So none of them takes the others' files.
func filesShare() int {
	const least, most = 64, 1 << 20
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return least
	}
	return int(max(least, min(limit.Cur, most)/4))
}
