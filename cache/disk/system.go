package disk

import (
	"io/fs"
	"os"

	"github.com/entrepot/entrepot/cache"
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

func (kernel) OpensFromMemory(folder string) bool { return opensFromMemory(folder) }

func (kernel) OpenPublishedFromMemory(path string) (files.File, bool) {
	file, ok := openFromMemory(path)
	return kernelFile{file}, ok
}

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

func (f kernelFile) IdentifyFromMemory() (files.Identity, bool) { return identifyFromMemory(f.File) }

func (f kernelFile) SetAttribute(name string, value []byte) error {
	return setAttribute(f.File, name, value)
}

func (f kernelFile) Reopen() (files.File, error)               { return wrapFile(reopen(f.File)) }
func (f kernelFile) AvoidPageCache() (over func())             { return avoidPageCache(f.File) }
func (f kernelFile) SendTo(socket uintptr, n int) (int, error) { return sendTo(socket, f.File, n) }
func (f kernelFile) IsResident(off, n int64) bool              { return isResident(f.File, off, n) }
func (f kernelFile) OS() *os.File                              { return f.File }

// Space returns the room of the file system that a folder is on.
func Space(folder string) (cache.Space, error) {
	of, err := space(folder)
	return cache.Space(of), err
}

// Inodes returns how many files the file system of a folder can hold, and how
// many more. A total of 0 means that it does not tell, or has no bound.
func Inodes(folder string) (total, free int64, err error) {
	of, err := space(folder)
	return of.Inodes, of.FreeInodes, err
}
