package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// Commit waits for a Save that has begun. The map is removed last: one without
// its file is removed at the start, but a file without its map as well.
func (d *draft) Commit() error {
	d.saving.Lock()
	defer d.saving.Unlock()
	if err := d.stopped(); err != nil {
		return fmt.Errorf("commit %s: %w", d.want.Digest, err)
	}
	if err := d.Verify(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	d.blobs.sizes.publish(d.want.Digest, d.file, d.Written())
	err := d.cutToPrefix()
	if err == nil {
		err = d.sync()
	}
	if err == nil {
		err = d.publish()
	}
	if err != nil {
		return fmt.Errorf("commit %s: %w", d.want.Digest, wrapFull(err))
	}
	d.end()
	if err := errors.Join(d.removeMap(), d.blobs.dropKept(d.want.Digest)); err != nil {
		d.blobs.log.Warn("an unfinished download could not be removed after the content was published", "digest", d.want.Digest.String(), "error", err)
	}
	return nil
}

// cutToPrefix removes what is behind the prefix. If the size was not announced,
// pieces may be.
func (d *draft) cutToPrefix() error {
	if !d.sparse.Load() {
		return nil
	}
	return d.file.Truncate(d.Written())
}

func (d *draft) sync() error {
	if err := d.blobs.faults.inject(d.blobs.faults.sync); err != nil {
		return err
	}
	return d.file.Sync()
}

// end ends the writing of a draft that stays.
func (d *draft) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.done = true
	d.release(d.reserved)
}

// publish moves the file to its final path. It replaces a file that is already
// there, because this one has just been verified.
func (d *draft) publish() error {
	path, _ := d.blobs.pathOf(d.want.Digest)
	if err := d.moveTo(path); err != nil {
		return err
	}
	d.blobs.saveSums(d.want.Digest, path, d.file, d.sums.sums())
	return d.blobs.files.SyncFolder(filepath.Dir(path))
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
	d.path = path
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
	if err := b.restoring(func() error { return b.makeDurable(folder) }); err != nil {
		return err
	}
	err := b.files.Rename(from, to)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Somebody has removed the folders since they were created.
	clear(b.durableFolders)
	if err := b.restoring(func() error { return b.makeDurable(folder) }); err != nil {
		return err
	}
	return b.files.Rename(from, to)
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
	if err := b.files.Mkdir(folder); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := b.files.SyncFolder(parent); err != nil {
		return err
	}
	b.durableFolders[folder] = true
	return nil
}
