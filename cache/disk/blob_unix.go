//go:build !windows

package disk

import (
	"io"
	"syscall"

	"github.com/entrepot/entrepot/cache/disk/files"
)

// blob is a file open for reading. It has the methods that the kernel needs to
// send it (net's sendfile asserts syscall.Conn) and hides the rest of os.File.
type blob struct {
	file files.File
	size int64
}

func newBlob(file files.File, size int64) *blob { return &blob{file, size} }

func (b *blob) Read(p []byte) (int, error) {
	n, err := b.file.Read(p)
	return n, wrapUnreadable(err)
}

func (b *blob) ReadAt(p []byte, off int64) (int, error) {
	n, err := b.file.ReadAt(p, off)
	return n, wrapUnreadable(err)
}

// SendTo has the kernel send at most n of the next bytes to a socket; see
// files.File. Unlike what package net does with SyscallConn, each call returns
// when it would wait for the socket.
func (b *blob) SendTo(socket uintptr, n int) (int, error) {
	n, err := b.file.SendTo(socket, n)
	return n, wrapUnreadable(err)
}

func (b *blob) Seek(offset int64, whence int) (int64, error) { return b.file.Seek(offset, whence) }
func (b *blob) WriteTo(w io.Writer) (int64, error)           { return b.file.WriteTo(w) }
func (b *blob) SyscallConn() (syscall.RawConn, error)        { return b.file.SyscallConn() }
func (b *blob) Close() error                                 { return b.file.Close() }
func (b *blob) Size() int64                                  { return b.size }
