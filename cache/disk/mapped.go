package disk

import "go.etcd.io/bbolt"

const (
	// mappedMost is about how much of the database is mapped at once, in bytes.
	// bbolt maps the whole file, and whatever was read of it counts as memory of
	// this process from then on, up to the size of the database. The kernel's
	// cache has the pages anyway: to map one again costs a microsecond.
	mappedMost = 16 << 20
	// mappedByGet is about what the look-up of one key maps when it is changed, in
	// bytes. The kernel maps neighbours as well.
	mappedByGet = 32 << 10
)

// mapMore notes that n bytes were read, and lets all pages go if they are many.
// A transaction is open, so that the file is not mapped elsewhere meanwhile.
func (d *database) mapMore(tx *bbolt.Tx, n int) {
	if d.mapped.Add(int64(n)) < mappedMost {
		return
	}
	d.mapped.Store(0)
	unmapPages(d.bolt.Info().Data, tx.Size())
}

// mapMoreAfter is mapMore after a transaction with n changes.
func (d *database) mapMoreAfter(changes int) {
	if d.mapped.Add(int64(changes)*mappedByGet) < mappedMost {
		return
	}
	_ = d.view(func(tx *bbolt.Tx) error { // if it breaks here, the next use finds out
		d.mapMore(tx, 0)
		return nil
	})
}
