package main

// filesShare is a quarter of the files that this process may have open. A
// quarter each is for clients' connections, for blobs that are sent and for
// downloads; the last is for what else there is: connections to upstreams, the
// records, the log. So none of them takes the others' files.
func filesShare() int {
	const least, most = 64, 1 << 20
	return int(max(least, min(filesLimit(), most)/4))
}
