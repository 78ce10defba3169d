package disk

import (
	"io"
	"io/fs"
	"os"

	"github.com/entrepot/entrepot/cache/disk/files"
)

// placed is a file system of which each operation holds a place.
type placed struct {
	files.System
	places *places
}

func (p placed) reading(do func() error) error {
	if err := p.places.read(); err != nil {
		return err
	}
	defer p.places.endRead()
	return do()
}

func (p placed) writing(do func() error) error {
	if err := p.places.write(); err != nil {
		return err
	}
	defer p.places.endWrite()
	return do()
}

func (p placed) wrap(file files.File, err error) (files.File, error) {
	if err != nil {
		return nil, err
	}
	return &placedFile{file, p}, nil
}

func (p placed) Open(path string, flag int) (file files.File, err error) {
	open := func() error {
		file, err = p.System.Open(path, flag)
		return err
	}
	if flag&(os.O_CREATE|os.O_TRUNC) != 0 {
		err = p.writing(open)
	} else {
		err = p.reading(open)
	}
	return p.wrap(file, err)
}

func (p placed) OpenPublished(path string) (files.File, error) {
	if err := p.places.read(); err != nil {
		return nil, err
	}
	defer p.places.endRead()
	return p.wrap(p.System.OpenPublished(path))
}

// OpenPublishedFromMemory holds no place, because it never waits for the disk.
func (p placed) OpenPublishedFromMemory(path string) (files.File, bool) {
	file, ok := p.System.OpenPublishedFromMemory(path)
	return &placedFile{file, p}, ok
}

func (p placed) CreateTemp(folder, pattern string) (files.File, error) {
	if err := p.places.write(); err != nil {
		return nil, err
	}
	defer p.places.endWrite()
	return p.wrap(p.System.CreateTemp(folder, pattern))
}

func (p placed) Rename(from, to string) error {
	return p.writing(func() error { return p.System.Rename(from, to) })
}

func (p placed) Remove(path string) error {
	return p.writing(func() error { return p.System.Remove(path) })
}

func (p placed) Mkdir(path string) error {
	return p.writing(func() error { return p.System.Mkdir(path) })
}

func (p placed) MkdirAll(path string) error {
	return p.writing(func() error { return p.System.MkdirAll(path) })
}

func (p placed) SyncFolder(path string) error {
	return p.writing(func() error { return p.System.SyncFolder(path) })
}

func (p placed) Lstat(path string) (fs.FileInfo, error) {
	if err := p.places.read(); err != nil {
		return nil, err
	}
	defer p.places.endRead()
	return p.System.Lstat(path)
}

func (p placed) ReadDir(path string) ([]fs.DirEntry, error) {
	if err := p.places.read(); err != nil {
		return nil, err
	}
	defer p.places.endRead()
	return p.System.ReadDir(path)
}

func (p placed) Attribute(path, name string, into []byte) (int, error) {
	if err := p.places.read(); err != nil {
		return 0, err
	}
	defer p.places.endRead()
	return p.System.Attribute(path, name, into)
}

func (p placed) Space(folder string) (files.Space, error) {
	if err := p.places.read(); err != nil {
		return files.Space{}, err
	}
	defer p.places.endRead()
	return p.System.Space(folder)
}

// placedFile is a file of which each operation holds a place, unless it never
// waits for the disk.
type placedFile struct {
	files.File
	of placed
}

func (f *placedFile) Read(p []byte) (n int, err error) {
	if err := f.of.places.read(); err != nil {
		return 0, err
	}
	defer f.of.places.endRead()
	return f.File.Read(p)
}

func (f *placedFile) ReadAt(p []byte, off int64) (n int, err error) {
	if err := f.of.places.read(); err != nil {
		return 0, err
	}
	defer f.of.places.endRead()
	return f.File.ReadAt(p, off)
}

// WriteTo holds a place for each read, and none while w is waited for.
func (f *placedFile) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{f})
}

func (f *placedFile) SendTo(socket uintptr, n int) (int, error) {
	if err := f.of.places.read(); err != nil {
		return 0, err
	}
	defer f.of.places.endRead()
	return f.File.SendTo(socket, n)
}

func (f *placedFile) Stat() (fs.FileInfo, error) {
	if err := f.of.places.read(); err != nil {
		return nil, err
	}
	defer f.of.places.endRead()
	return f.File.Stat()
}

func (f *placedFile) Identify() (files.Identity, error) {
	if err := f.of.places.read(); err != nil {
		return files.Identity{}, err
	}
	defer f.of.places.endRead()
	return f.File.Identify()
}

func (f *placedFile) Write(p []byte) (int, error) {
	if err := f.of.places.write(); err != nil {
		return 0, err
	}
	defer f.of.places.endWrite()
	return f.File.Write(p)
}

func (f *placedFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.of.places.write(); err != nil {
		return 0, err
	}
	defer f.of.places.endWrite()
	return f.File.WriteAt(p, off)
}

func (f *placedFile) Truncate(size int64) error {
	return f.of.writing(func() error { return f.File.Truncate(size) })
}

func (f *placedFile) Sync() error { return f.of.writing(f.File.Sync) }

func (f *placedFile) SetAttribute(name string, value []byte) error {
	return f.of.writing(func() error { return f.File.SetAttribute(name, value) })
}

func (f *placedFile) Reopen() (files.File, error) { return f.of.wrap(f.File.Reopen()) }

func (f *placedFile) Close() error { return f.of.places.closing(f.File.Close) }
