// Package disk keeps a cache in a folder: content as files named for their
// digests, records in a bbolt database.
//
//	blobs/<algorithm>/<2>/<hex>  published content
//	blobs/…/<hex>.sums           checksums of its pieces, where it has several
//	drafts/                      content not yet proven; emptied at start
//	damaged/                     content set aside, the last few
//	records.db                   records
//	records.journal              the precious records once more, see Options.Journal
//	format                       the version of this layout
//	lock                         held by the process that owns the folder
package disk

import (
	// The algorithms a digest may name (image-spec, descriptor.md, "Digests").
	_ "crypto/sha256"
	_ "crypto/sha512"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/entrepot/entrepot/cache"
)

// Options say how a cache on disk behaves. The zero value is usable.
type Options struct {
	// Log gets what nobody else hears of: damage set aside, records that
	// could not be written. nil discards it.
	Log *slog.Logger
	// MinFree is how many bytes of the file system drafts leave free. 0
	// leaves none.
	MinFree int64
	// Journal names the buckets whose records are precious: they are kept a
	// second time, in a file of their own, from which they are had back when
	// the database is lost.
	Journal []cache.Bucket
	// FlushEvery is how long a record may wait to be durable. 0 means 200 ms.
	FlushEvery time.Duration
	// FlushAt is how many records may wait before they are written ahead of
	// time. 0 means 4096.
	FlushAt int
	// MaxPending is how many records are kept in memory while the disk takes
	// none; the oldest beyond it are forgotten. 0 means 100,000. Records that
	// the journal has taken do not count.
	MaxPending int
	// OnRecordsError is called, from any goroutine, for every failure to
	// write or read records. It is for counting, and MUST NOT call the cache:
	// the failure is logged and mended elsewhere. nil is fine.
	OnRecordsError func(error)
	// VerifyEvery is how long a piece of content that was checked counts as
	// checked, while its file does not change. 0 checks it each time.
	VerifyEvery time.Duration
	// OnDamage is called, from any goroutine, for every content that is set
	// aside because it is damaged. It is for counting, and MUST NOT call the
	// cache. nil is fine.
	OnDamage func()

	faults faults
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.FlushEvery <= 0 {
		o.FlushEvery = 200 * time.Millisecond
	}
	if o.FlushAt <= 0 {
		o.FlushAt = 4096
	}
	if o.MaxPending <= 0 {
		o.MaxPending = 100_000
	}
	if o.OnDamage == nil {
		o.OnDamage = func() {}
	}
	if o.OnRecordsError == nil {
		o.OnRecordsError = func(error) {}
	}
	return o
}

// Cache is an open cache folder.
type Cache struct {
	blobs   *blobs
	records *records
	lock    *os.File
	close   sync.Once
	closed  error
}

// Open opens the cache in dir and makes it where there is none. It returns an
// error that wraps cache.ErrLocked where another process has it open. Its work
// does not grow with the cache, but for one case: after damage to the records
// it reads the journal.
func Open(dir string, opts Options) (*Cache, error) {
	opts = opts.withDefaults()
	lock, err := own(dir, opts.Log)
	if err != nil {
		return nil, err
	}
	records, err := openRecords(dir, opts)
	if err != nil {
		lock.Close()
		return nil, err
	}
	return &Cache{
		blobs:   newBlobs(dir, opts, records),
		records: records,
		lock:    lock,
	}, nil
}

// Blobs is the content of the cache.
func (c *Cache) Blobs() cache.Blobs { return c.blobs }

// Records are the records of the cache.
func (c *Cache) Records() cache.Records { return c.records }

// Rebuilt says whether the database of records was lost, at Open or since, and
// begun anew. Then the records of the journal are there, and no others from
// before.
func (c *Cache) Rebuilt() bool { return c.records.rebuilt.Load() }

// Behind is the age of the oldest record that is not durable, at most: what
// was put earlier outlives a power cut. 0 means that none waits.
func (c *Cache) Behind() time.Duration { return c.records.age() }

// Close makes the records durable and gives the folder up. Drafts are to be
// closed before; open blobs stay readable.
func (c *Cache) Close() error {
	c.close.Do(func() {
		c.blobs.close()
		c.blobs.proofs.Wait()
		c.closed = errors.Join(c.records.Close(), c.lock.Close())
	})
	return c.closed
}
