package config

import (
	"path/filepath"
	"strconv"
	"strings"
)

const (
	// socketScheme begins the address of a Unix socket.
	socketScheme = "unix:"
	// maxSocket is the length in bytes of the longest path of a socket that every
	// system takes.
	maxSocket = 103
)

// Socket returns the path of the Unix socket that an address names, or false if
// it is host:port.
func Socket(address string) (path string, ok bool) {
	return strings.CutPrefix(address, socketScheme+"//")
}

// checkAdmin checks host:port, or unix:// and the path of a socket. It does not
// look for the socket's folder: that of a systemd unit is there only while the
// unit runs, and commands work on the cache of one that does not.
func (r *report) checkAdmin(key, address string) {
	path, isSocket := Socket(address)
	const example = "write a path such as unix:///run/entrepot/admin.sock"
	switch {
	case !isSocket && strings.HasPrefix(address, socketScheme):
		r.add(key, quoted(address)+" is not the address of a socket", "did you mean "+socketScheme+"//"+strings.TrimPrefix(address, socketScheme)+"?")
	case !isSocket:
		r.checkAddress(key, address, "127.0.0.1:5001")
	case !filepath.IsAbs(path):
		r.add(key, quoted(path)+" is not an absolute path", example)
	case strings.HasSuffix(path, "/") || strings.ContainsRune(path, 0):
		r.add(key, quoted(path)+" is not the path of a file", example)
	case len(path) > maxSocket:
		r.add(key, "has a path of "+strconv.Itoa(len(path))+" bytes, and a socket's has at most "+strconv.Itoa(maxSocket), example)
	}
}
