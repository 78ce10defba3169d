package limits

// openFiles is a bound of our own. Windows has no such limit, but each file
// takes memory, and so does each connection.
func openFiles() int64 { return 64 << 10 }
