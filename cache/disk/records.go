package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"github.com/entrepot/entrepot/cache"
)

var errRecordsClosed = errors.New("the records are closed")

// recordName identifies a record.
type recordName struct {
	bucket cache.Bucket
	key    string
}

// pendingChange is a Put or Delete that is not in the database yet. It never
// changes, except for journaled, which r.mu guards.
type pendingChange struct {
	value     []byte
	deleted   bool
	order     uint64
	journaled bool // it is in the journal
}

// records are a bbolt database and a map of the changes that it does not have
// yet. Get and Scan use both. One goroutine writes the changes to the database,
// and retries for as long as that fails.
type records struct {
	path    string
	opts    Options
	journal *journal
	rebuilt atomic.Bool
	fresh   atomic.Pointer[database] // being written to replace db; nil if none is

	replaceMu sync.Mutex // held while the database is replaced
	finished  bool       // no database may be opened any more; guarded by replaceMu

	mu              sync.Mutex
	db              *database // nil if there is none
	replaying       bool      // pending contains the whole journal, because the database may be incomplete
	journalReadable bool      // while replaying: the whole journal could be read
	pending         map[cache.Bucket]map[string]*pendingChange
	count           int // number of pending changes
	unjournaled     int // number of those that are not in the journal
	expendable      int // number of those that need not be durable
	order           uint64
	scheduled       bool      // a flush is scheduled
	oldest          time.Time // anything put before is durable; meaningless if nothing is pending
	closed          bool

	wake          chan struct{} // something is pending
	flushNow      chan struct{} // many changes are pending
	flushRequests chan chan error
	stop          chan struct{}
	stopped       chan struct{}
	flushFailing  bool          // the last flush failed; guarded by mu
	flushed       chan struct{} // closed when a flush is over; guarded by mu
	compactAfter  time.Time     // used by the flushing goroutine only
	close         sync.Once
	closeErr      error // of the last flush
}

func openRecords(dir string, opts Options) (*records, error) {
	r := &records{
		path:          filepath.Join(dir, "records.db"),
		opts:          opts,
		journal:       newJournal(opts.Files, filepath.Join(dir, "records.journal"), opts.Journal),
		pending:       make(map[cache.Bucket]map[string]*pendingChange),
		wake:          make(chan struct{}, 1),
		flushNow:      make(chan struct{}, 1),
		flushRequests: make(chan chan error),
		stop:          make(chan struct{}),
		stopped:       make(chan struct{}),
		flushed:       make(chan struct{}),
	}
	if err := r.start(); err != nil {
		return nil, err
	}
	// A partial journal, from a process that ended while it rewrote it.
	_ = opts.Files.Remove(r.journal.path + ".new")
	_ = opts.Files.Remove(r.path + ".new")
	go r.run()
	return r, nil
}

func (r *records) Get(b cache.Bucket, key string) ([]byte, error) {
	// If the database turns out to be damaged, it is replaced, and read once
	// more.
	for range 2 {
		r.mu.Lock()
		db, closed, w := r.db, r.closed, r.pending[b][key]
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
		_ = r.replace(db, err) // it logs its own errors
	}
	return nil, fmt.Errorf("record %s/%q: %w", b, key, cache.ErrNotFound)
}

// Put stores keys of 1 to 32,768 bytes, the range that bbolt supports.
func (r *records) Put(b cache.Bucket, key string, value []byte) {
	value = bytes.Clone(value)
	if value == nil {
		value = []byte{}
	}
	r.set(b, key, &pendingChange{value: value})
}

func (r *records) Delete(b cache.Bucket, key string) {
	r.set(b, key, &pendingChange{deleted: true})
}

func (r *records) set(b cache.Bucket, key string, w *pendingChange) {
	if len(b) == 0 || len(key) == 0 || len(key) > bbolt.MaxKeySize {
		err := fmt.Errorf("record %s/%.40q…: a key of %d bytes can't be stored", b, key, len(key))
		r.opts.Log.Error("a record was not stored", "error", err)
		r.opts.OnRecordsError(err)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.put(b, key, w)
	r.makeRoom()
	if !r.scheduled {
		r.scheduled = true
		signal(r.wake)
	}
	if r.count == r.opts.FlushAt {
		signal(r.flushNow)
	}
}

// put adds a pending change. r.mu is held.
func (r *records) put(b cache.Bucket, key string, w *pendingChange) {
	if r.count == 0 {
		r.oldest = time.Now()
	}
	r.remove(b, key)
	r.order++
	w.order = r.order
	if r.pending[b] == nil {
		r.pending[b] = make(map[string]*pendingChange)
	}
	r.pending[b][key] = w
	r.count++
	if !w.journaled {
		r.unjournaled++
	}
	if !r.journal.buckets[b] {
		r.expendable++
	}
}

// remove drops a pending change. r.mu is held.
func (r *records) remove(b cache.Bucket, key string) {
	w := r.pending[b][key]
	if w == nil {
		return
	}
	delete(r.pending[b], key)
	r.count--
	if !w.journaled {
		r.unjournaled--
	}
	if !r.journal.buckets[b] {
		r.expendable--
	}
}

// Pace waits at half of what may be pending: what is put meanwhile has room.
func (r *records) Pace(ctx context.Context) {
	for ctx.Err() == nil {
		r.mu.Lock()
		wait := r.unjournaled > r.opts.MaxPending/2 && !r.flushFailing && !r.closed
		flushed := r.flushed
		r.mu.Unlock()
		if !wait {
			return
		}
		signal(r.flushNow)
		select {
		case <-flushed:
		case <-ctx.Done():
		}
	}
}

func (r *records) Flush(ctx context.Context) error {
	answer := make(chan error, 1)
	select {
	case r.flushRequests <- answer:
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
		close(r.stop)
		<-r.stopped
	})
	return r.closeErr
}

// age returns the maximum age of the pending changes.
func (r *records) age() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.count == 0 {
		return 0
	}
	return time.Since(r.oldest)
}

// signal sends to a channel of length one without blocking.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
