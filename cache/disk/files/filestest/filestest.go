// Package filestest is a file system with faults, for tests: a disk that hangs,
// fails, is full, or has been emptied, and is mended again.
package filestest

import (
	"io"
	"io/fs"
	"os"
	"sync"
	"syscall"

	"github.com/entrepot/entrepot/cache/disk/files"
)

// Operations are kinds of what is done with a file system.
type Operations uint

const (
	// Reads are what reads content, names, attributes and sizes. To open a file
	// for reading is one.
	Reads Operations = 1 << iota
	// Sends are what sends content from the page cache: they follow a read.
	Sends
	// Creates make a file or a folder.
	Creates
	// Changes write content and attributes, and remove and rename.
	Changes
	// Syncs make durable.
	Syncs
	// Spaces ask how much room there is.
	Spaces

	// Writes are all that changes something, or makes it durable.
	Writes = Creates | Changes | Syncs
	// All are all.
	All = Reads | Sends | Writes | Spaces
)

// Disk is a file system over another one. It does what that does until it is
// broken. All methods are safe for concurrent use.
type Disk struct {
	under files.System

	mu     sync.Mutex
	errors map[Operations]error
	hung   map[Operations]chan struct{}
	space  func(files.Space) files.Space
	waits  int
}

// Over returns a disk over a file system.
func Over(under files.System) *Disk {
	return &Disk{under: under, errors: make(map[Operations]error), hung: make(map[Operations]chan struct{})}
}

// Hang makes operations wait until the disk is mended.
func (d *Disk) Hang(of Operations) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.each(of, func(one Operations) {
		if d.hung[one] == nil {
			d.hung[one] = make(chan struct{})
		}
	})
}

// Fail makes operations fail with an error: EIO, ENOSPC, EDQUOT, ENOENT, EROFS.
func (d *Disk) Fail(of Operations, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.each(of, func(one Operations) { d.errors[one] = err })
}

// NoInodes makes what creates files fail. Bytes are free.
func (d *Disk) NoInodes() {
	d.Fail(Creates, syscall.ENOSPC)
	d.SetSpace(func(of files.Space) files.Space {
		of.FreeInodes = 0
		return of
	})
}

// SetSpace changes what the disk tells of its room. For a file system that
// tells nothing, change returns the zero value.
func (d *Disk) SetSpace(change func(files.Space) files.Space) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.space = change
}

// Mend ends all faults. What hangs goes on.
func (d *Disk) Mend() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.errors)
	for _, hung := range d.hung {
		close(hung)
	}
	clear(d.hung)
	d.space = nil
}

// Waiting returns how many operations hang.
func (d *Disk) Waiting() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.waits
}

func (d *Disk) each(of Operations, do func(Operations)) {
	for one := Reads; one <= Spaces; one <<= 1 {
		if of&one != 0 {
			do(one)
		}
	}
}

// before returns the fate of an operation, after it has hung.
func (d *Disk) before(one Operations) error {
	d.mu.Lock()
	hung := d.hung[one]
	if hung != nil {
		d.waits++
		d.mu.Unlock()
		<-hung
		d.mu.Lock()
		d.waits--
	}
	defer d.mu.Unlock()
	return d.errors[one]
}

// at is before, with the error that the kernel would give for a path.
func (d *Disk) at(one Operations, name, path string) error {
	if err := d.before(one); err != nil {
		return &fs.PathError{Op: name, Path: path, Err: err}
	}
	return nil
}

func (d *Disk) wrap(f files.File, err error) (files.File, error) {
	if err != nil {
		return nil, err
	}
	return &file{f, d}, nil
}

// Open opens a file.
func (d *Disk) Open(path string, flag int) (files.File, error) {
	kind := Reads
	if flag&os.O_CREATE != 0 {
		kind = Creates
	}
	if err := d.at(kind, "open", path); err != nil {
		return nil, err
	}
	return d.wrap(d.under.Open(path, flag))
}

// OpenPublished opens a file for reading.
func (d *Disk) OpenPublished(path string) (files.File, error) {
	if err := d.at(Reads, "open", path); err != nil {
		return nil, err
	}
	return d.wrap(d.under.OpenPublished(path))
}

// OpensFromMemory says what the one below says.
func (d *Disk) OpensFromMemory(folder string) bool { return d.under.OpensFromMemory(folder) }

// OpenPublishedFromMemory knows no name while reads are broken.
func (d *Disk) OpenPublishedFromMemory(path string) (files.File, bool) {
	if d.readsAreBroken() {
		return nil, false
	}
	found, ok := d.under.OpenPublishedFromMemory(path)
	return &file{found, d}, ok
}

// CreateTemp creates a file.
func (d *Disk) CreateTemp(folder, pattern string) (files.File, error) {
	if err := d.at(Creates, "open", folder); err != nil {
		return nil, err
	}
	return d.wrap(d.under.CreateTemp(folder, pattern))
}

// Rename renames a file.
func (d *Disk) Rename(from, to string) error {
	if err := d.at(Changes, "rename", from); err != nil {
		return err
	}
	return d.under.Rename(from, to)
}

// Remove removes a file.
func (d *Disk) Remove(path string) error {
	if err := d.at(Changes, "remove", path); err != nil {
		return err
	}
	return d.under.Remove(path)
}

// Mkdir makes a folder.
func (d *Disk) Mkdir(path string) error {
	if err := d.at(Creates, "mkdir", path); err != nil {
		return err
	}
	return d.under.Mkdir(path)
}

// MkdirAll makes a folder and those above it.
func (d *Disk) MkdirAll(path string) error {
	if err := d.at(Creates, "mkdir", path); err != nil {
		return err
	}
	return d.under.MkdirAll(path)
}

// Lstat describes a file.
func (d *Disk) Lstat(path string) (fs.FileInfo, error) {
	if err := d.at(Reads, "lstat", path); err != nil {
		return nil, err
	}
	return d.under.Lstat(path)
}

// ReadDir lists a folder.
func (d *Disk) ReadDir(path string) ([]fs.DirEntry, error) {
	if err := d.at(Reads, "open", path); err != nil {
		return nil, err
	}
	return d.under.ReadDir(path)
}

// SyncFolder makes the names in a folder durable.
func (d *Disk) SyncFolder(path string) error {
	if err := d.at(Syncs, "sync", path); err != nil {
		return err
	}
	return d.under.SyncFolder(path)
}

// Attribute reads an attribute.
func (d *Disk) Attribute(path, name string, into []byte) (int, error) {
	if err := d.before(Reads); err != nil {
		return 0, err
	}
	return d.under.Attribute(path, name, into)
}

// Space tells how much room there is.
func (d *Disk) Space(folder string) (files.Space, error) {
	if err := d.at(Spaces, "statfs", folder); err != nil {
		return files.Space{}, err
	}
	of, err := d.under.Space(folder)
	d.mu.Lock()
	change := d.space
	d.mu.Unlock()
	if change != nil && err == nil {
		of = change(of)
	}
	return of, err
}

// file is an open file of a Disk.
type file struct {
	files.File
	disk *Disk
}

func (f *file) at(one Operations, name string) error { return f.disk.at(one, name, f.Name()) }

func (f *file) Read(p []byte) (int, error) {
	if err := f.at(Reads, "read"); err != nil {
		return 0, err
	}
	return f.File.Read(p)
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if err := f.at(Reads, "read"); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, off)
}

func (f *file) WriteTo(w io.Writer) (int64, error) {
	if err := f.at(Reads, "read"); err != nil {
		return 0, err
	}
	return f.File.WriteTo(w)
}

// SyscallConn is asked each time the file is sent.
func (f *file) SyscallConn() (syscall.RawConn, error) {
	if f.disk.before(Reads) != nil {
		return nil, syscall.ENOTSUP // so that it is read, and gets the error there
	}
	return f.File.SyscallConn()
}

func (f *file) SendTo(socket uintptr, n int) (int, error) {
	if err := f.at(Sends, "sendfile"); err != nil {
		return 0, err
	}
	return f.File.SendTo(socket, n)
}

// readsAreBroken reports whether reads hang or fail.
func (d *Disk) readsAreBroken() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.hung[Reads] != nil || d.errors[Reads] != nil
}

// IsResident says that nothing is in the page cache while reads are broken.
func (f *file) IsResident(off, n int64) bool {
	return !f.disk.readsAreBroken() && f.File.IsResident(off, n)
}

func (f *file) Stat() (fs.FileInfo, error) {
	if err := f.at(Reads, "stat"); err != nil {
		return nil, err
	}
	return f.File.Stat()
}

func (f *file) Identify() (files.Identity, error) {
	if err := f.at(Reads, "stat"); err != nil {
		return files.Identity{}, err
	}
	return f.File.Identify()
}

func (f *file) Write(p []byte) (int, error) {
	if err := f.at(Changes, "write"); err != nil {
		return 0, err
	}
	return f.File.Write(p)
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	if err := f.at(Changes, "write"); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, off)
}

func (f *file) Truncate(size int64) error {
	if err := f.at(Changes, "truncate"); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f *file) SetAttribute(name string, value []byte) error {
	if err := f.at(Changes, "setxattr"); err != nil {
		return err
	}
	return f.File.SetAttribute(name, value)
}

func (f *file) Sync() error {
	if err := f.at(Syncs, "sync"); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *file) Reopen() (files.File, error) { return f.disk.wrap(f.File.Reopen()) }
