package disk

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
)

var errPublished = errors.New("the content is published, but may not be durable")

// Save does not hold up writes. What is written while it waits for the disk is
// not in the map.
func (d *draft) Save(note []byte) error {
	d.saving.Lock()
	defer d.saving.Unlock()
	if _, err := d.save(note); err != nil {
		return fmt.Errorf("save the draft of %s: %w", d.want.Digest, wrapFull(err))
	}
	return nil
}

// save writes the map of what is there. d.saving is held.
func (d *draft) save(note []byte) (m draftMap, err error) {
	if err := d.stopped(); err != nil {
		return m, err
	}
	if d.isPublished() {
		return m, errPublished
	}
	m = d.snapshot(bytes.Clone(note))
	if err := d.sync(); err != nil {
		return m, err
	}
	d.saved = true
	// The folder is synced with the map's name, which makes that of the draft
	// durable as well.
	return m, writeDurably(d.blobs.files, d.mapPath, m.encode())
}

// isPublished reports whether a Commit that failed has moved the file to its
// final path.
func (d *draft) isPublished() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return filepath.Dir(d.path) != d.blobs.drafts
}

func (d *draft) Keep(note []byte) error {
	d.saving.Lock()
	defer d.saving.Unlock()
	m, err := d.save(note)
	if err != nil {
		return fmt.Errorf("keep the draft of %s: %w", d.want.Digest, wrapFull(err))
	}
	d.end()
	d.blobs.keep(keptFile{m.kept(), d.path})
	return nil
}
