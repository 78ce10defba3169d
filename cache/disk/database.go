package disk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/disk/files"
)

// errDamaged says that a database is unreadable and has to be replaced.
var errDamaged = errors.New("the database is damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// database is a bbolt database that may be damaged. bbolt trusts its file: if
// the file is not what it wrote, it panics, or accesses unmapped memory. Here
// that becomes an error. Every value has a checksum, because a page may also be
// damaged in a way that bbolt can't notice.
//
// A panic can leave bbolt's own locks locked forever. So only one goroutine
// reads at a time, none uses a database after the first damage, and a broken
// database is abandoned, not closed.
type database struct {
	bolt *bbolt.DB
	file files.File // opened by bbolt
	// places are held while the file, which is mapped, is read and written.
	places *places

	mapped   atomic.Int64 // bytes of the file that were read since its pages were let go
	size     atomic.Int64 // bytes of its pages
	free     atomic.Int64 // those of them that are not in use
	reading  sync.Mutex
	walk     walk // guarded by reading
	breaking sync.Once
	broken   chan struct{} // closed at the first damage
}

// openDatabase returns errDamaged if the file is not a database.
func openDatabase(system files.System, places *places, path string) (*database, error) {
	d := &database{places: places, broken: make(chan struct{})}
	before, _ := system.Lstat(path)
	err := recoverDamage(func() (err error) {
		d.bolt, err = bbolt.Open(path, 0o600, &bbolt.Options{
			// The folder is locked, so if the file is locked it is not by
			// another entrepot.
			Timeout: time.Second,
			// The list of free pages is written with each transaction.
			// Otherwise every start would read the whole database.
			NoFreelistSync: false,
			FreelistType:   bbolt.FreelistMapType,
			OpenFile: func(name string, flag int, _ os.FileMode) (*os.File, error) {
				file, err := system.Open(name, flag)
				if err != nil {
					return nil, err
				}
				d.file = file
				return file.OS(), nil
			},
		})
		if err == nil {
			d.measure()
		}
		return err
	})
	if err == nil {
		return d, nil
	}
	if d.file != nil {
		d.file.Close()
	}
	if before == nil {
		// It could not be created for lack of space, which is not damage.
		_ = system.Remove(path)
	}
	var fromKernel syscall.Errno
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fmt.Errorf("%w: %s is held open", cache.ErrLocked, path)
	case errors.As(err, &fromKernel), errors.Is(err, errDamaged):
		return nil, err
	default:
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
}

// get returns cache.ErrNotFound, or errDamaged.
func (d *database) get(b cache.Bucket, key string) (value []byte, err error) {
	err = d.view(func(tx *bbolt.Tx) error {
		root := d.walk.begin(d, tx)
		found, err := d.walk.seekIn(root, b, []byte(key))
		if err != nil {
			return err
		}
		if !found {
			return cache.ErrNotFound
		}
		k, sealed, err := d.walk.record()
		if err != nil {
			return err
		}
		if string(k) != key {
			return cache.ErrNotFound
		}
		value, err = unseal(key, sealed)
		return err
	})
	return value, err
}

// record is a key and its value.
type record struct {
	key   string
	value []byte
}

// page returns at most n records with a prefix after a key, in the order of
// keys, or errDamaged. A transaction that stayed open for a whole scan would keep
// the writer from reusing free pages and from growing the file.
func (d *database) page(b cache.Bucket, prefix, after string, inclusive bool, n int) (page []record, err error) {
	err = d.view(func(tx *bbolt.Tx) error {
		w := &d.walk
		root := w.begin(d, tx)
		more, err := w.seekIn(root, b, []byte(after))
		for ; more && err == nil && len(page) < n; more, err = w.valid() {
			k, v, err := w.record()
			if err != nil {
				return err
			}
			key := string(k)
			if w.top().at++; key == after && !inclusive {
				continue
			}
			if !strings.HasPrefix(key, prefix) {
				return nil
			}
			if key < after {
				// Pages that lead back to one another would be read for ever.
				return damaged("the record %q comes after %q", key, after)
			}
			after, inclusive = key, false
			value, err := unseal(key, v)
			if err != nil {
				return err
			}
			page = append(page, record{key, value})
		}
		return err
	})
	return page, err
}

// view runs a read transaction. It returns when the disk goes down.
func (d *database) view(fn func(*bbolt.Tx) error) error {
	return awaitError(context.Background(), d.places, task{operation: "read the records"}, func() error {
		d.reading.Lock()
		defer d.reading.Unlock()
		if err := d.places.read(); err != nil {
			return err
		}
		defer d.places.endRead()
		return d.use(func() error { return d.bolt.View(fn) })
	})
}

// update runs a write transaction. It returns when the disk goes down, and when
// the database breaks, even while the transaction waits for a lock that a
// reader's panic left locked. In that case one goroutine leaks for each broken
// database.
func (d *database) update(fn func(*bbolt.Tx) error) error {
	done := make(chan error, 1)
	disk := d.places.state.Load()
	go func() {
		if err := d.places.write(); err != nil {
			done <- err
			return
		}
		defer d.places.endWrite()
		done <- d.use(func() error {
			err := d.bolt.Update(fn)
			d.measure()
			return err
		})
	}()
	select {
	case err := <-done:
		return err
	case <-d.broken:
		return errDamaged
	case <-disk.failed:
		return errDown
	}
}

func (d *database) use(fn func() error) error {
	select {
	case <-d.broken:
		return errDamaged
	default:
	}
	err := recoverDamage(fn)
	if errors.Is(err, berrors.ErrInvalidMapping) {
		// The kernel refused to map the grown file, and bbolt can't recover
		// from that. A new database may work.
		err = fmt.Errorf("%w: %w", errDamaged, err)
	}
	if errors.Is(err, errDamaged) {
		d.breaking.Do(func() { close(d.broken) })
	}
	return err
}

// abandon has all who use the database see it as broken: there is another one.
func (d *database) abandon() {
	d.breaking.Do(func() { close(d.broken) })
	d.file.Close()
}

// close waits for all transactions. A broken database is abandoned.
func (d *database) close() error {
	select {
	case <-d.broken:
		// Its memory stays mapped, because another goroutine may be reading it.
		return d.file.Close()
	default:
		return d.bolt.Close()
	}
}

// recoverDamage turns a panic of fn into errDamaged. fn only runs bbolt and
// code of this package.
func recoverDamage(fn func() error) (err error) {
	// A file that is truncated while it is open causes a fault in mapped
	// memory.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errDamaged, p)
		}
	}()
	return fn()
}

// seal appends a checksum of key and value to the value.
func seal(key string, value []byte) []byte {
	sealed := append(make([]byte, 0, len(value)+4), value...)
	return binary.BigEndian.AppendUint32(sealed, sum(key, value))
}

func unseal(key string, sealed []byte) ([]byte, error) {
	n := len(sealed) - 4
	if n < 0 || binary.BigEndian.Uint32(sealed[n:]) != sum(key, sealed[:n]) {
		return nil, fmt.Errorf("%w: the record %q has a wrong checksum", errDamaged, key)
	}
	return append([]byte{}, sealed[:n]...), nil
}

func sum(key string, value []byte) uint32 {
	return crc32.Update(crc32.Checksum([]byte(key), castagnoli), castagnoli, value)
}
