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
	err := d.blobs.faults.inject(d.blobs.faults.sync)
	if err == nil {
		err = d.file.Sync()
	}
	if err == nil {
		err = d.publish()
	}
	if err != nil {
		return fmt.Errorf("commit %s: %w", d.want.Digest, wrapFull(err))
	}
	d.done = true
	d.mu.Lock()
	defer d.mu.Unlock()
	d.release(d.reserved)
	return nil
}

// publish moves the file to its final path. It replaces a file that is already
// there, because this one has just been verified.
func (d *draft) publish() error {
	path, _ := d.blobs.pathOf(d.want.Digest)
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
	if err := d.blobs.moveToPath(d.path, path); err != nil {
		return err
	}
	draft := d.path
	d.path = path
	// What a crash leaves of the map is removed when the cache is opened.
	if err := errors.Join(d.removeMap(draft), d.blobs.dropKept(d.want.Digest)); err != nil {
		d.blobs.log.Warn("a part of an earlier download cannot be removed", "digest", d.want.Digest.String(), "error", err)
	}
	return nil
}

// moveToPath moves a file to its final path.
func (b *blobs) moveToPath(from, to string) error {
	b.nameMu.Lock()
	defer b.nameMu.Unlock()
	if err := b.faults.inject(b.faults.rename); err != nil {
		return err
	}
	folder := filepath.Dir(to)
	if err := b.makeDurable(folder); err != nil {
		return err
	}
	err := rename(from, to)
	if errors.Is(err, fs.ErrNotExist) {
		// Somebody has removed the folders since they were created.
		clear(b.durableFolders)
		if err := b.makeDurable(folder); err != nil {
			return err
		}
		err = rename(from, to)
	}
	return err
}

// makeDurable creates a folder below root and makes it durable. A folder that
// exists need not have been written to disk yet, so this is done once for each
// folder and process. b.nameMu is held.
func (b *blobs) makeDurable(folder string) error {
	if b.durableFolders[folder] || folder == b.root {
		return nil
	}
	parent := filepath.Dir(folder)
	if err := b.makeDurable(parent); err != nil {
		return err
	}
	if err := os.Mkdir(folder, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := syncFolder(parent); err != nil {
		return err
	}
	b.durableFolders[folder] = true
	return nil
}
