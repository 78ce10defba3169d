package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

func (d *draft) Commit() error {
	if d.done {
		return fmt.Errorf("commit %s: %w", d.want.Digest, errDone)
	}
	if err := d.Verify(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	d.blobs.sizes.publish(d.want.Digest, d.file, d.Written())
	err := d.blobs.faults.refuse(d.blobs.faults.sync)
	if err == nil {
		err = d.file.Sync()
	}
	if err == nil {
		err = d.publish()
	}
	if err != nil {
		return fmt.Errorf("commit %s: %w", d.want.Digest, noRoom(err))
	}
	d.done = true
	d.release(d.promised)
	return nil
}

// publish gives the file its name. Where the name is taken, this file takes
// its place: it was proven just now, and the other a while ago.
func (d *draft) publish() error {
	path, _ := d.blobs.place(d.want.Digest)
	if err := d.moveTo(path); err != nil {
		return err
	}
	d.blobs.saveSums(d.want.Digest, path, d.file, d.sums.sums())
	return syncFolder(filepath.Dir(path))
}

func (d *draft) moveTo(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.path == path {
		return nil // an earlier Commit got this far
	}
	if err := d.blobs.name(d.path, path); err != nil {
		return err
	}
	d.path = path
	return nil
}

// name moves a file to its place.
func (b *blobs) name(from, to string) error {
	b.naming.Lock()
	defer b.naming.Unlock()
	if err := b.faults.refuse(b.faults.rename); err != nil {
		return err
	}
	folder := filepath.Dir(to)
	if err := b.makeLasting(folder); err != nil {
		return err
	}
	err := rename(from, to)
	if errors.Is(err, fs.ErrNotExist) {
		// Someone cleared the folders away since they were made.
		clear(b.lasting)
		if err := b.makeLasting(folder); err != nil {
			return err
		}
		err = rename(from, to)
	}
	return err
}

// makeLasting makes a folder below root, and durable: that it is there already
// does not say that it was ever written to the disk. Once for each folder and
// run. b.naming is held.
func (b *blobs) makeLasting(folder string) error {
	if b.lasting[folder] || folder == b.root {
		return nil
	}
	parent := filepath.Dir(folder)
	if err := b.makeLasting(parent); err != nil {
		return err
	}
	if err := os.Mkdir(folder, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := syncFolder(parent); err != nil {
		return err
	}
	b.lasting[folder] = true
	return nil
}
