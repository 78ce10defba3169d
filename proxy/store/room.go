package store

import (
	"context"
	"fmt"
	"sync"

	"github.com/entrepot/entrepot/cache"
)

// Bounds say how much a store may keep. Zero means no bound.
type Bounds struct {
	// MaxBytes is the size of everything kept. MinFree is what stays free on
	// the file system, in bytes, as Free tells it.
	MaxBytes, MinFree int64
	Free              func() (int64, error)
}

const (
	// lowMark is the part of a bound, in percent, to which eviction goes down
	// once it starts, so that it does not run for each blob.
	lowMark = 90
	// fruitless is how many passes of eviction a blob waits through, while
	// others take the room that these make.
	fruitless = 4
)

// room counts what is kept, so that it stays within its bounds. It counts bytes
// that are published. A blob that was downloaded is published only once it fits
// (see admit), which no client waits for: so the bound holds however fast
// images stream in, and what is above it is in flight.
type room struct {
	bounds Bounds
	weight func(size int64) int64 // what content of so many bytes takes
	notify func(bytes int64)      // of kept; may be nil
	short  chan struct{}          // asks for a pass of eviction

	mu       sync.Mutex
	kept     int64                    // bytes published, or reserved
	counted  bool                     // kept is known
	reserved map[Digest]int64         // of kept, what is not published yet
	deleting map[Digest]chan struct{} // closed when the deletion is over
	counting *count                   // under way; nil while there is none
	incoming int64                    // bytes of downloads under way
	waiting  int64                    // bytes of those who wait in admit
	passes   passes                   // of eviction
}

// passes are those that eviction makes to find room.
type passes struct {
	begun, ended int
	vain         bool          // the last one wanted room and found none
	next         chan struct{} // closed when the next one ends
}

// count is a count of what lies on disk. What came since it began counts by
// itself, whether the walk meets it or not.
type count struct {
	came  map[Digest]bool
	bytes int64 // of these
}

func newRoom(bounds Bounds, weight func(int64) int64, notify func(int64)) *room {
	return &room{
		bounds: bounds, weight: weight, notify: notify, short: make(chan struct{}, 1),
		reserved: make(map[Digest]int64), deleting: make(map[Digest]chan struct{}),
		passes: passes{next: make(chan struct{})},
	}
}

// wake asks for a pass of eviction.
func (r *room) wake() {
	select {
	case r.short <- struct{}{}:
	default:
	}
}

// expect notes that n more bytes are being downloaded, or, where n is negative,
// that they no longer are: so eviction begins before they arrive.
func (r *room) expect(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.incoming += n
	if n > 0 && r.tight() {
		r.wake()
	}
}

// admit waits until the n bytes of d fit, and reserves them. It returns
// cache.ErrFull where nothing can be removed for them. The caller calls finish.
func (r *room) admit(ctx context.Context, d Digest, n int64) error {
	n = r.weight(n)
	most := r.bounds.MaxBytes
	if most > 0 && n > most {
		return fmt.Errorf("%w: %d bytes are more than all that may be kept", cache.ErrFull, n)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	// Only a pass that begins later knows of this need.
	asked := r.passes.begun
	r.waiting += n
	defer func() { r.waiting -= n }()
	for r.awaitDeletion(d); most > 0 && (!r.counted || r.kept+n > most); r.awaitDeletion(d) {
		if r.passes.ended > asked && (r.passes.vain || r.passes.ended > asked+fruitless) {
			return fmt.Errorf("%w: of %d bytes everything is pinned or in use", cache.ErrFull, most)
		}
		r.wake()
		next := r.passes.next
		r.mu.Unlock()
		select {
		case <-next:
			r.mu.Lock()
		case <-ctx.Done():
			r.mu.Lock()
			return context.Cause(ctx)
		}
	}
	r.add(d, n)
	return nil
}

// reserve reserves the n bytes of d whether they fit or not.
func (r *room) reserve(d Digest, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.awaitDeletion(d)
	r.add(d, r.weight(n))
	if r.tight() {
		r.wake()
	}
}

// add counts the n bytes that d takes before they can be seen on disk. r.mu is
// held.
func (r *room) add(d Digest, n int64) {
	r.change(n)
	r.reserved[d] = n
	if r.counting != nil {
		r.counting.came[d] = true
		r.counting.bytes += n
	}
}

// finish ends what admit or reserve began: d was published, or was not.
func (r *room) finish(d Digest, published bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.reserved[d]
	delete(r.reserved, d)
	if published {
		return
	}
	r.change(-n)
	if r.counting != nil {
		delete(r.counting.came, d)
		r.counting.bytes -= n
	}
}

// beginDelete returns false where d is just being published. What is published
// later waits for endDelete.
func (r *room) beginDelete(d Digest) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, publishing := r.reserved[d]; publishing {
		return false
	}
	r.deleting[d] = make(chan struct{})
	return true
}

func (r *room) endDelete(d Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.deleting[d])
	delete(r.deleting, d)
}

// awaitDeletion returns when d is not being deleted. r.mu is held before and
// after, and not while it waits.
func (r *room) awaitDeletion(d Digest) {
	for over := r.deleting[d]; over != nil; over = r.deleting[d] {
		r.mu.Unlock()
		<-over
		r.mu.Lock()
	}
}

// removed notes that content of n bytes is gone from the disk.
func (r *room) removed(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.change(-r.weight(n))
}

// change counts n more bytes as kept. r.mu is held.
func (r *room) change(n int64) {
	r.kept += n
	if r.notify != nil {
		r.notify(r.kept)
	}
}

// tight says that there is no room for all that is on its way. Only a part of
// the downloads counts, or many small ones would empty a small cache. r.mu is
// held.
func (r *room) tight() bool {
	most := r.bounds.MaxBytes
	return most > 0 && r.kept+r.waiting+min(r.incoming, most/100*(100-lowMark)) > most
}

// excess is how many bytes have to go.
func (r *room) excess() int64 {
	r.mu.Lock()
	var excess int64
	if r.tight() {
		excess = min(r.kept, r.kept+r.waiting-r.bounds.MaxBytes/100*lowMark)
	}
	r.mu.Unlock()
	if least := r.bounds.MinFree; least > 0 && r.bounds.Free != nil {
		if free, err := r.bounds.Free(); err == nil && free < least {
			excess = max(excess, least+least/100*(100-lowMark)-free)
		}
	}
	return excess
}
