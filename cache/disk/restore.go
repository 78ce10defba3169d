package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"go.etcd.io/bbolt"

	"github.com/entrepot/entrepot/cache/disk/files"
)

const (
	// A group of restored changes is one transaction. It is small, because its
	// pages are in memory until it ends.
	restoreChanges = 2000
	restoreBytes   = 1 << 20
)

// restoring writes the journal to a database that nobody else uses yet. It
// takes the same memory, however long the journal is.
type restoring struct {
	db     *database
	faults faults
	group  []pendingRecord
	bytes  int // of the group
	count  int // changes that were restored
}

// notOfTheJournal is an error that reading the journal did not cause.
type notOfTheJournal struct{ error }

func (e notOfTheJournal) Unwrap() error { return e.error }

func isNotOfTheJournal(err error) bool {
	var other notOfTheJournal
	return errors.As(err, &other)
}

// run restores the journal at path. It returns the number of damaged lines that
// were skipped. A missing journal has no records.
func (r *restoring) run(system files.System, path string) (damaged int, err error) {
	file, err := system.Open(path, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer file.Close()
	r.db.bolt.NoSync = true // it is not complete before it is synced
	var failed error
	damaged, err = readLines(file, func(c change) bool {
		failed = r.add(c)
		return failed == nil
	})
	if failed == nil {
		failed = r.write()
	}
	if failed == nil {
		failed = r.db.sync()
	}
	if failed != nil {
		return damaged, notOfTheJournal{fmt.Errorf("restore the records: %w", failed)}
	}
	return damaged, err
}

// add adds a change to the group, and writes it if it is large enough.
func (r *restoring) add(c change) error {
	r.group = append(r.group, pendingRecord{recordName{c.bucket, c.key}, &pendingChange{value: c.value, deleted: c.deleted}})
	r.bytes += len(c.key) + len(c.value)
	if len(r.group) >= restoreChanges || r.bytes >= restoreBytes {
		return r.write()
	}
	return nil
}

// write writes the group.
func (r *restoring) write() error {
	// In the order of the journal, because a later change of a key wins.
	if err := r.faults.inject(r.faults.records); err != nil {
		return err
	}
	err := r.db.update(func(tx *bbolt.Tx) error {
		for _, m := range r.group {
			if err := apply(tx, m); err != nil {
				return fmt.Errorf("record %s/%q: %w", m.bucket, m.key, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	r.count += len(r.group)
	r.db.mapMoreAfter(len(r.group))
	clear(r.group)
	r.group, r.bytes = r.group[:0], 0
	return nil
}

// sync makes everything durable, and from now on each transaction.
func (d *database) sync() error {
	return d.use(func() error {
		d.bolt.NoSync = false
		return d.bolt.Sync()
	})
}
