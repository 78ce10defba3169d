package main

// openFileShare returns a quarter of the files that this process may have open.
// Clients' connections, blobs being sent, and downloads get a quarter each. The
// last quarter is for everything else, such as connections to upstreams, the
// records and the log. So none of them can use up the others' files.
func openFileShare() int {
	const least, most = 64, 1 << 20
	return int(max(least, min(openFileLimit(), most)/4))
}
