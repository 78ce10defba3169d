// Package files defines how a cache reaches the file system that its folder is
// on. Package disk has the implementation over the operating system's, and
// package filestest one that fails, for tests.
package files

import (
	"io"
	"io/fs"
	"os"
	"syscall"
)

// System is a file system. Paths are those of the operating system. Files are
// created with access for this user only. All methods are safe for concurrent
// use.
type System interface {
	// Open opens a file, which may be renamed or removed while it is open.
	Open(path string, flag int) (File, error)
	// OpenPublished opens a file for reading. It does not follow a symbolic
	// link.
	OpenPublished(path string) (File, error)
	// OpensFromMemory says whether files in a folder are opened without asking a
	// disk or a server, if their names are in memory.
	OpensFromMemory(folder string) bool
	// OpenPublishedFromMemory is OpenPublished of such a file. It reports false if
	// its name is not in memory.
	OpenPublishedFromMemory(path string) (File, bool)
	// CreateTemp creates a file with a unique name, like os.CreateTemp.
	CreateTemp(folder, pattern string) (File, error)
	// Rename replaces a file that may be open.
	Rename(from, to string) error
	Remove(path string) error
	Mkdir(path string) error
	MkdirAll(path string) error
	Lstat(path string) (fs.FileInfo, error)
	ReadDir(path string) ([]fs.DirEntry, error)
	// SyncFolder makes the names in a folder durable.
	SyncFolder(path string) error
	// Attribute reads an extended attribute, and returns its length. It does
	// not follow a symbolic link.
	Attribute(path, name string, into []byte) (n int, err error)
	// Space describes the file system that a folder is on.
	Space(folder string) (Space, error)
}

// File is an open file. It has the methods of [os.File].
type File interface {
	io.Reader
	io.Writer
	io.Seeker
	io.ReaderAt
	io.WriterAt
	io.WriterTo
	io.Closer
	// SyscallConn is for the kernel, which sends the file.
	syscall.Conn
	// SendTo has the kernel send at most n of the next bytes to a socket, in one
	// call that waits for the disk and not for the socket: then it returns
	// EAGAIN. It returns errors.ErrUnsupported where the system has no such call.
	SendTo(socket uintptr, n int) (int, error)
	// IsResident reports whether a part of the file can be sent without asking
	// the disk: whether it is in the page cache. It does not ask the disk
	// either. Where the system doesn't tell, it returns true.
	IsResident(off, n int64) bool
	Name() string
	Stat() (fs.FileInfo, error)
	Sync() error
	Truncate(size int64) error
	// Identify identifies what the file has now.
	Identify() (Identity, error)
	// IdentifyFromMemory is Identify as far as the kernel knows without asking a
	// disk or a server. It reports false where the system doesn't tell.
	IdentifyFromMemory() (Identity, bool)
	SetAttribute(name string, value []byte) error
	// Reopen opens the file again, even if its name is gone. On Unix, both
	// share one offset.
	Reopen() (File, error)
	// AvoidPageCache keeps what is read until over is called from displacing
	// what clients read from the page cache. It is advice that a kernel may
	// ignore.
	AvoidPageCache() (over func())
	// OS returns the file itself, for locks and for a database that maps it.
	OS() *os.File
}

// Identity identifies an unchanged file.
type Identity struct {
	Inode uint64
	Size  int64
	// Seconds and Nanos are the time of its last change.
	Seconds, Nanos int64
}

// Space is the room of a file system: in all, and what this user can still
// write. A total of zero says that it is not known.
type Space struct {
	Bytes, FreeBytes   int64
	Inodes, FreeInodes int64
}
