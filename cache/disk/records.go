package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"github.com/entrepot/entrepot/cache"
)

var errRecordsClosed = errors.New("the records are closed")

// recordName is where a record stands.
type recordName struct {
	bucket cache.Bucket
	key    string
}

// waiting is a Put or Delete that is not in the database yet. It never
// changes, but for journaled, which r.mu guards.
type waiting struct {
	value     []byte
	deleted   bool
	order     uint64
	journaled bool // the journal has it
}

// records are a bbolt database behind a map of what it does not hold yet. Gets
// and scans look into both; one goroutine moves things from the map to the
// database, and may fail at it as long as it takes.
type records struct {
	path    string
	opts    Options
	journal *journal
	rebuilt atomic.Bool

	opening  sync.Mutex // held while the database is replaced
	finished bool       // no database is opened any more; guarded by opening

	mu        sync.Mutex
	db        *database // nil while none is to be had
	replaying bool      // the map has the whole journal, because the database may lack some of it
	mendable  bool      // while replaying: the journal could be read to its end
	waiting   map[cache.Bucket]map[string]*waiting
	count     int // of what waits
	loose     int // of what waits and is not in the journal
	order     uint64
	scheduled bool      // the next flush is
	oldest    time.Time // what was put before is durable; of no meaning while nothing waits
	closed    bool

	wake    chan struct{} // something waits
	hurry   chan struct{} // a lot waits
	asks    chan chan error
	closing chan struct{}
	stopped chan struct{}
	failing bool // of the flushing goroutine: the last flush failed
	close   sync.Once
	last    error // of the last flush
}

func openRecords(dir string, opts Options) (*records, error) {
	r := &records{
		path:    filepath.Join(dir, "records.db"),
		opts:    opts,
		journal: newJournal(filepath.Join(dir, "records.journal"), opts.Journal),
		waiting: make(map[cache.Bucket]map[string]*waiting),
		wake:    make(chan struct{}, 1),
		hurry:   make(chan struct{}, 1),
		asks:    make(chan chan error),
		closing: make(chan struct{}),
		stopped: make(chan struct{}),
	}
	if err := r.start(); err != nil {
		return nil, err
	}
	// Half of a journal, from a process that ended as it rewrote it.
	os.Remove(r.journal.path + ".new")
	go r.run()
	return r, nil
}

func (r *records) Get(b cache.Bucket, key string) ([]byte, error) {
	// A database that turns out to be damaged is replaced, and asked once more.
	for range 2 {
		r.mu.Lock()
		db, closed, w := r.db, r.closed, r.waiting[b][key]
		r.mu.Unlock()
		switch {
		case closed:
			return nil, fmt.Errorf("record %s/%q: %w", b, key, errRecordsClosed)
		case w != nil && !w.deleted:
			return w.value, nil
		case w != nil || db == nil:
			return nil, fmt.Errorf("record %s/%q: %w", b, key, cache.ErrNotFound)
		}
		value, err := db.get(b, key)
		if err == nil {
			return value, nil
		}
		if !errors.Is(err, errDamaged) {
			return nil, fmt.Errorf("record %s/%q: %w", b, key, err)
		}
		_ = r.replace(db, err) // it says itself what it could not do
	}
	return nil, fmt.Errorf("record %s/%q: %w", b, key, cache.ErrNotFound)
}

// Put keeps keys of 1 to 32,768 bytes, which is what bbolt takes.
func (r *records) Put(b cache.Bucket, key string, value []byte) {
	value = bytes.Clone(value)
	if value == nil {
		value = []byte{}
	}
	r.set(b, key, &waiting{value: value})
}

func (r *records) Delete(b cache.Bucket, key string) {
	r.set(b, key, &waiting{deleted: true})
}

func (r *records) set(b cache.Bucket, key string, w *waiting) {
	if len(b) == 0 || len(key) == 0 || len(key) > bbolt.MaxKeySize {
		err := fmt.Errorf("record %s/%.40q…: a key of %d bytes can't be kept", b, key, len(key))
		r.opts.Log.Error("a record was not kept", "error", err)
		r.opts.OnRecordsError(err)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.put(b, key, w)
	if r.loose > r.opts.MaxPending {
		r.dropOldest()
	}
	if !r.scheduled {
		r.scheduled = true
		signal(r.wake)
	}
	if r.count == r.opts.FlushAt {
		signal(r.hurry)
	}
}

// put makes w wait. r.mu is held.
func (r *records) put(b cache.Bucket, key string, w *waiting) {
	if r.count == 0 {
		r.oldest = time.Now()
	}
	r.remove(b, key)
	r.order++
	w.order = r.order
	if r.waiting[b] == nil {
		r.waiting[b] = make(map[string]*waiting)
	}
	r.waiting[b][key] = w
	r.count++
	if !w.journaled {
		r.loose++
	}
}

// remove ends the waiting of a record. r.mu is held.
func (r *records) remove(b cache.Bucket, key string) {
	w := r.waiting[b][key]
	if w == nil {
		return
	}
	delete(r.waiting[b], key)
	r.count--
	if !w.journaled {
		r.loose--
	}
}

func (r *records) Flush(ctx context.Context) error {
	answer := make(chan error, 1)
	select {
	case r.asks <- answer:
	case <-r.stopped:
		return fmt.Errorf("flush records: %w", errRecordsClosed)
	case <-ctx.Done():
		return fmt.Errorf("flush records: %w", context.Cause(ctx))
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return fmt.Errorf("flush records: %w", context.Cause(ctx))
	}
}

func (r *records) Close() error {
	r.close.Do(func() {
		close(r.closing)
		<-r.stopped
	})
	return r.last
}

// age is how long ago what waits may have been put.
func (r *records) age() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.count == 0 {
		return 0
	}
	return time.Since(r.oldest)
}

// signal leaves word on a channel of length one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
