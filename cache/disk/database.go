package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/entrepot/entrepot/cache"
)

// errDamaged says that a database can't be read any more and must be set aside.
var errDamaged = errors.New("the database is damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// database is a bbolt database that may be damaged. bbolt trusts its file: it
// panics, or touches memory that is not there, where the file is not what it
// wrote. Here that is an error, and every value carries a checksum, because a
// page may also be wrong in a way that bbolt can't see.
//
// A panic can leave bbolt's own locks held for ever. So one goroutine reads at
// a time, none touches a database that has broken, and a broken one is
// abandoned, not closed.
type database struct {
	bolt *bbolt.DB
	file *os.File // bbolt's

	reading  sync.Mutex
	breaking sync.Once
	broken   chan struct{} // closed at the first damage
}

// openDatabase returns errDamaged where there is a file that is no database.
func openDatabase(path string) (*database, error) {
	d := &database{broken: make(chan struct{})}
	before, _ := os.Stat(path)
	err := guard(func() (err error) {
		d.bolt, err = bbolt.Open(path, 0o600, &bbolt.Options{
			// The folder's lock is held already: whoever has this one open
			// is not an entrepot.
			Timeout: time.Second,
			// The list of free pages is written with each transaction:
			// without it every start would read the whole database.
			NoFreelistSync: false,
			FreelistType:   bbolt.FreelistMapType,
			NoStatistics:   true,
			OpenFile: func(name string, flag int, _ os.FileMode) (*os.File, error) {
				file, err := openShared(name, flag)
				d.file = file
				return file, err
			},
		})
		return err
	})
	if err == nil {
		return d, nil
	}
	if d.file != nil {
		d.file.Close()
	}
	if before == nil {
		// Begun and not finished, for want of room: that is no damage.
		os.Remove(path)
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
		bucket := tx.Bucket([]byte(b))
		if bucket == nil {
			return cache.ErrNotFound
		}
		sealed := bucket.Get([]byte(key))
		if sealed == nil {
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

// page returns at most n records from the key after on, in their order: a
// transaction that stayed open for a whole scan would keep the writer from
// using free pages, and from growing the file.
func (d *database) page(b cache.Bucket, after string, inclusive bool, n int) (page []record, err error) {
	err = d.view(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket([]byte(b))
		if bucket == nil {
			return nil
		}
		cursor := bucket.Cursor()
		k, v := cursor.Seek([]byte(after))
		if !inclusive && string(k) == after {
			k, v = cursor.Next()
		}
		for ; k != nil && len(page) < n; k, v = cursor.Next() {
			key := string(k)
			value, err := unseal(key, v)
			if err != nil {
				return err
			}
			page = append(page, record{key, value})
		}
		return nil
	})
	return page, err
}

// view runs a read transaction.
func (d *database) view(fn func(*bbolt.Tx) error) error {
	d.reading.Lock()
	defer d.reading.Unlock()
	return d.use(func() error { return d.bolt.View(fn) })
}

// update runs a write transaction. It returns when the database breaks, also
// while the transaction waits for a lock that a reader's panic left behind;
// then it waits for ever, one goroutine for each time a database breaks.
func (d *database) update(fn func(*bbolt.Tx) error) error {
	done := make(chan error, 1)
	go func() {
		done <- d.use(func() error { return d.bolt.Update(fn) })
	}()
	select {
	case err := <-done:
		return err
	case <-d.broken:
		return errDamaged
	}
}

func (d *database) use(fn func() error) error {
	select {
	case <-d.broken:
		return errDamaged
	default:
	}
	err := guard(fn)
	if errors.Is(err, berrors.ErrInvalidMapping) {
		// The kernel refused to map the file as it grew, and bbolt cannot
		// recover from that. Begun anew, it may.
		err = fmt.Errorf("%w: %w", errDamaged, err)
	}
	if errors.Is(err, errDamaged) {
		d.breaking.Do(func() { close(d.broken) })
	}
	return err
}

// close waits for all transactions; a broken database is let go of.
func (d *database) close() error {
	select {
	case <-d.broken:
		// Its memory stays mapped: someone may be reading there.
		return d.file.Close()
	default:
		return d.bolt.Close()
	}
}

// guard turns a panic of fn into errDamaged. fn runs nothing but bbolt and
// code of this package.
func guard(fn func() error) (err error) {
	// A file cut short behind bbolt's back shows as a fault in mapped memory.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errDamaged, p)
		}
	}()
	return fn()
}

// seal adds a checksum over key and value to the value.
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
