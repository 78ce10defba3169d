// Package disk implements a cache in a folder: content as files named by their
// digests, records in a bbolt database.
//
//	blobs/<algorithm>/<2>/<hex>  published content
//	blobs/…/<hex>.sums           checksums of its pieces, if it has several
//	drafts/<12 hex>-…            content that is not verified yet; those without a map are removed at the start
//	drafts/….map                 which pieces of it are durable, with their checksums; see draftMap
//	damaged/                     quarantined content, the last few files
//	records.db                   records
//	records.journal              a second copy of some records, see Options.Journal
//	format                       the version of this layout
//	lock                         held by the process that has the folder open
package disk

import (
	// The algorithms a digest may name (image-spec, descriptor.md, "Digests").
	_ "crypto/sha256"
	_ "crypto/sha512"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/disk/files"
)

// Options configure a cache on disk. The zero value is usable.
type Options struct {
	// Log gets the events that no caller learns of: damage that was
	// quarantined, records that could not be written. nil discards them.
	Log *slog.Logger
	// MinFree is how many bytes of the file system drafts leave free. 0 means
	// none.
	MinFree int64
	// Journal names the buckets whose records have to be durable: a second copy
	// of them is written to a file of its own. They are restored from it if the
	// database is lost.
	Journal []cache.Bucket
	// FlushEvery is how long a record may wait to become durable. 0 means 200
	// ms.
	FlushEvery time.Duration
	// FlushAt is how many records may wait before they are written early. 0
	// means 4096.
	FlushAt int
	// MaxPending is how many records are kept in memory while the disk can't be
	// written; beyond that the oldest are dropped. 0 means 100,000. Records in
	// the journal do not count.
	MaxPending int
	// OnRecordsError is called, from any goroutine, for every failure to write
	// or read records. It is for metrics and MUST NOT call the cache, which
	// logs and repairs the failure itself. It may be nil.
	OnRecordsError func(error)
	// VerifyEvery is how long a piece of content counts as checked while its
	// file does not change. 0 checks it each time.
	VerifyEvery time.Duration
	// OnDamage is called, from any goroutine, for every damaged content that is
	// quarantined. It is for metrics and MUST NOT call the cache. It may be
	// nil.
	OnDamage func()

	// Files is the file system. nil means the operating system's.
	Files files.System

	// Places bound the operations of the disk that are under way at once. The
	// zero value is PlacesFor any number of threads.
	Places Places
	// DownAfter is how long reads wait for the disk before it counts as down. 0
	// means 5 s.
	DownAfter time.Duration
	// OnDown is called when the disk goes down, with true, and when it is up
	// again, with false. It MUST NOT call the cache. It may be nil.
	OnDown func(down bool)

	faults faults
	places *places // of Files
	folder *folder
	aside  *aside
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Files == nil {
		o.Files = kernel{}
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
	if o.Places == (Places{}) {
		o.Places = PlacesFor(0, runtime.GOMAXPROCS(0))
	}
	if o.DownAfter <= 0 {
		o.DownAfter = downAfter
	}
	if o.OnDown == nil {
		o.OnDown = func(bool) {}
	}
	return o
}

// Cache is an open cache folder.
type Cache struct {
	blobs   *blobs
	records *records
	places  *places
	folder  *folder
	aside   *aside
	close   sync.Once
	closed  error
}

// Open opens the cache in dir, and creates it if there is none. It returns an
// error that wraps cache.ErrLocked if another process has it open. The work of
// Open does not grow with the cache, only with the number of drafts that were
// kept, of which it reads the maps. But when the records are damaged, it reads
// the journal.
func Open(dir string, opts Options) (*Cache, error) {
	opts = opts.withDefaults()
	system := opts.Files
	opts.places = newPlaces(opts, func() error { return probe(system, dir) })
	opts.Files = placed{system, opts.places}
	c, err := openLocked(dir, opts)
	if err != nil {
		opts.places.close()
	}
	return c, err
}

func openLocked(dir string, opts Options) (*Cache, error) {
	lock, err := openFolder(opts.Files, dir, opts.Log)
	if err != nil {
		return nil, err
	}
	opts.folder = &folder{dir: dir, files: opts.Files, log: opts.Log, lock: lock}
	opts.aside = newAside(dir, opts)
	records, err := openRecords(dir, opts)
	if err != nil {
		lock.Close()
		return nil, err
	}
	blobs := newBlobs(dir, opts, records)
	if err := blobs.loadKept(); err != nil {
		records.Close()
		lock.Close()
		return nil, err
	}
	return &Cache{
		blobs:   blobs,
		records: records,
		places:  opts.places,
		folder:  opts.folder,
		aside:   opts.aside,
	}, nil
}

// Blobs returns the content of the cache.
func (c *Cache) Blobs() cache.Blobs { return guarded{c.blobs, c.places} }

// Outage returns nil, or, while the disk is down, a channel that is closed when
// it is up again.
func (c *Cache) Outage() <-chan struct{} { return c.places.outage() }

// Records returns the records of the cache.
func (c *Cache) Records() cache.Records { return c.records }

// Rebuilt reports whether the database of records was lost, at Open or since,
// and created again. Then only the records of the journal are left of the
// earlier ones.
func (c *Cache) Rebuilt() bool { return c.records.rebuilt.Load() }

// Behind returns the maximum age of the oldest record that is not durable:
// anything older survives a power failure. It is 0 if no record is waiting.
func (c *Cache) Behind() time.Duration { return c.records.age() }

// probe reads from the disk, and not from what is cached of it.
func probe(system files.System, dir string) error {
	file, err := system.Open(filepath.Join(dir, formatFile), os.O_RDONLY)
	if err != nil {
		return err
	}
	defer file.Close()
	file.AvoidPageCache()()
	_, err = file.Read(make([]byte, 1))
	return err
}
