package store

import (
	"context"
	"fmt"
	"sync"

	"github.com/entrepot/entrepot/cache"
)

// Bounds limit how much is stored. Zero means no bound.
type Bounds struct {
	// MaxBytes bounds the stored bytes. MinFree is how many bytes must stay
	// free on the file system, as reported by Free.
	MaxBytes, MinFree int64
	Free              func() (int64, error)
}

const (
	// lowWatermark is the share of a bound, in percent, to which eviction
	// reduces the stored bytes once it starts, so that it does not run for each
	// blob.
	lowWatermark = 90
	// maxPasses is how many eviction passes a blob waits for while others take
	// the room that these make.
	maxPasses = 4
)

// room counts the bytes in use, so that they stay within the bounds. It counts
// published content, and drafts that were kept. A downloaded blob is published
// only when it fits (see waitAndReserve), and no client waits for that. So the
// bound holds however fast images are pulled; content beyond it is still in
// flight, or was kept a moment ago and is about to be evicted.
type room struct {
	bounds      Bounds
	weight      func(size int64) int64 // bytes that content of a size takes on disk
	onChange    func(bytes int64)      // called with used; may be nil
	evictionDue chan struct{}          // requests an eviction pass

	mu sync.Mutex
	usage
	deleting map[Digest]chan struct{} // closed when the deletion is over
	counting *recount                 // the recount that is under way, or nil
	demand   demand
	passes   passes // of eviction
}

// usage is what takes room, in bytes.
type usage struct {
	used     int64            // published, reserved or kept
	counted  bool             // used is known
	reserved map[Digest]int64 // the part of used that is not published yet
	kept     map[Digest]int64 // the part of used that drafts take which were kept
}

// demand is what will need room soon, in bytes.
type demand struct {
	incoming int64 // of downloads that are running
	waiting  int64 // of publications that wait for room
}

// passes are the eviction passes.
type passes struct {
	begun, ended int
	vain         bool          // the last pass had to free something, and freed nothing
	next         chan struct{} // closed when the next pass ends
}

// recount is a count of what is on disk, in bytes. Content that was added since
// it began counts once, whether the walk finds it or not.
type recount struct {
	found, added map[Digest]int64
}

func (c *recount) total() (n int64) {
	for d, found := range c.found {
		if c.added[d] == 0 {
			n += found
		}
	}
	for _, added := range c.added {
		n += added
	}
	return n
}

func newRoom(bounds Bounds, weight func(int64) int64, onChange func(int64)) *room {
	return &room{
		bounds: bounds, weight: weight, onChange: onChange, evictionDue: make(chan struct{}, 1),
		usage:    usage{reserved: make(map[Digest]int64), kept: make(map[Digest]int64)},
		deleting: make(map[Digest]chan struct{}), passes: passes{next: make(chan struct{})},
	}
}

// wake requests an eviction pass.
func (r *room) wake() {
	select {
	case r.evictionDue <- struct{}{}:
	default:
	}
}

// addIncoming adds n to the number of bytes that are being downloaded; n may be
// negative. This lets eviction begin before the bytes arrive.
func (r *room) addIncoming(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.demand.incoming += n
	if n > 0 && r.isUnderPressure() {
		r.wake()
	}
}

// waitAndReserve waits until the n bytes of d fit, and reserves them. It
// returns cache.ErrFull if nothing can be removed to make room for them. The
// caller ends the reservation with endReservation.
func (r *room) waitAndReserve(ctx context.Context, d Digest, n int64) error {
	n = r.weight(n)
	most := r.bounds.MaxBytes
	if most > 0 && n > most {
		return fmt.Errorf("%w: %d bytes are more than the whole cache may hold", cache.ErrFull, n)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	// A pass that has already begun does not know of this need.
	before := r.passes.begun
	r.demand.waiting += n
	defer func() { r.demand.waiting -= n }()
	for r.awaitDeletion(d); most > 0 && (!r.counted || r.used+n > most); r.awaitDeletion(d) {
		if r.passes.ended > before && (r.passes.vain || r.passes.ended > before+maxPasses) {
			return fmt.Errorf("%w: everything in the %d bytes of the cache is pinned or in use", cache.ErrFull, most)
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
	r.addReservation(d, n)
	return nil
}

// reserve reserves the n bytes of d, whether they fit or not.
func (r *room) reserve(d Digest, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.awaitDeletion(d)
	r.addReservation(d, r.weight(n))
	if r.isUnderPressure() {
		r.wake()
	}
}

// addReservation counts the n bytes of d before they are visible on disk. r.mu
// is held.
func (r *room) addReservation(d Digest, n int64) {
	r.addUsed(n)
	r.reserved[d] += n
	if r.counting != nil {
		r.counting.added[d] += n
	}
}

// endReservation ends a reservation of the n bytes of d, which were published or
// were not.
func (r *room) endReservation(d Digest, n int64, published bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n = r.weight(n)
	if r.reserved[d] -= n; r.reserved[d] == 0 {
		delete(r.reserved, d)
	}
	if published {
		return
	}
	r.addUsed(-n)
	if r.counting != nil {
		r.counting.added[d] -= n
	}
}

// beginDelete returns false if d is being published. Later publications of d
// wait for endDelete.
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

// awaitDeletion returns when d is not being deleted. r.mu is held on entry and
// on return, but not while it waits.
func (r *room) awaitDeletion(d Digest) {
	for done := r.deleting[d]; done != nil; done = r.deleting[d] {
		r.mu.Unlock()
		<-done
		r.mu.Lock()
	}
}

// subtract reports that content of n bytes was removed from disk.
func (r *room) subtract(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addUsed(-r.weight(n))
}

// addUsed adds n to the bytes in use. r.mu is held.
func (r *room) addUsed(n int64) {
	r.used += n
	if r.onChange != nil {
		r.onChange(r.used)
	}
}

// isUnderPressure says whether there is not enough room for everything that is
// on its way. Downloads count only up to a limit, or many small ones would
// empty a small cache. r.mu is held.
func (r *room) isUnderPressure() bool {
	most := r.bounds.MaxBytes
	return most > 0 && r.used+r.demand.waiting+min(r.demand.incoming, most/100*(100-lowWatermark)) > most
}

// excess is how many bytes must be removed.
func (r *room) excess() int64 {
	r.mu.Lock()
	var excess int64
	if r.isUnderPressure() {
		excess = min(r.used, r.used+r.demand.waiting-r.bounds.MaxBytes/100*lowWatermark)
	}
	r.mu.Unlock()
	if least := r.bounds.MinFree; least > 0 && r.bounds.Free != nil {
		if free, err := r.bounds.Free(); err == nil && free < least {
			excess = max(excess, least+least/100*(100-lowWatermark)-free)
		}
	}
	return excess
}
