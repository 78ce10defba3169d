package disk

import (
	"io/fs"
	"os"

	"github.com/entrepot/entrepot/cache/disk/files"
)

// OS returns the file system of the operating system.
func OS() files.System { return kernel{} }

// kernel is the file system of the operating system. What differs from one to
// the other is in kernel_*.go.
type kernel struct{}

func (kernel) Open(path string, flag int) (files.File, error) {
	return wrapFile(openShared(path, flag))
}

func (kernel) OpenPublished(path string) (files.File, error) { return wrapFile(openPublished(path)) }

func (kernel) CreateTemp(folder, pattern string) (files.File, error) {
	return wrapFile(createShared(folder, pattern))
}

func (kernel) Rename(from, to string) error               { return rename(from, to) }
func (kernel) Remove(path string) error                   { return os.Remove(path) }
func (kernel) Mkdir(path string) error                    { return os.Mkdir(path, 0o700) }
func (kernel) MkdirAll(path string) error                 { return os.MkdirAll(path, 0o700) }
func (kernel) Lstat(path string) (fs.FileInfo, error)     { return os.Lstat(path) }
func (kernel) ReadDir(path string) ([]fs.DirEntry, error) { return os.ReadDir(path) }
func (kernel) SyncFolder(path string) error               { return syncFolder(path) }

func (kernel) Attribute(path, name string, into []byte) (int, error) {
	return getAttribute(path, name, into)
}

func (kernel) Space(folder string) (files.Space, error) { return space(folder) }

// kernelFile is a file of the operating system.
type kernelFile struct{ *os.File }

func wrapFile(file *os.File, err error) (files.File, error) {
	if err != nil {
		return nil, err
	}
	return kernelFile{file}, nil
}

func (f kernelFile) Identify() (files.Identity, error) { return identify(f.File) }

func (f kernelFile) SetAttribute(name string, value []byte) error {
	return setAttribute(f.File, name, value)
}

func (f kernelFile) Reopen() (files.File, error)               { return wrapFile(reopen(f.File)) }
func (f kernelFile) AvoidPageCache() (over func())             { return avoidPageCache(f.File) }
func (f kernelFile) SendTo(socket uintptr, n int) (int, error) { return sendTo(socket, f.File, n) }
func (f kernelFile) IsResident(off, n int64) bool              { return isResident(f.File, off, n) }
func (f kernelFile) OS() *os.File                              { return f.File }

// Space returns the size of the file system that a folder is on, and how much
// of it this user can still write, in bytes.
func Space(folder string) (total, free int64, err error) {
	of, err := space(folder)
	return of.Bytes, of.FreeBytes, err
}
