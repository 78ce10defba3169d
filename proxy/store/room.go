package store

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/entrepot/entrepot/cache"
)

// Bounds limit how much is stored. Zero means no bound.
type Bounds struct {
	// MaxBytes bounds the stored bytes. MinFree is how many bytes must stay
	// free on the file system, as reported by Space, which also reports how many
	// files it may have.
	MaxBytes, MinFree int64
	Space             func() (cache.Space, error)
	// Folder tells what is stored beside content, which counts too; nil means
	// nothing.
	Folder cache.Folder
}

const (
	// lowWatermark is the share of a bound, in percent, to which eviction
	// reduces the stored bytes once it starts, so that it does not run for each
	// blob.
	lowWatermark = 90
	// maxPasses is how many eviction passes a blob waits for while others take
	// the room that these make.
	maxPasses = 4
	// headShare is the share of the bound, a 64th, that blobs leave to
	// manifests, and maxHead the most that this is, in bytes: manifests do not
	// wait for room, and are what makes the blobs usable.
	headShare = 64
	maxHead   = 64 << 20
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
	queue    []*waiter // publications that wait for room, in the order in which they get it
	passes   passes    // of eviction
	refusals refusals
}

// usage is what takes room, in bytes.
type usage struct {
	used     int64            // published, reserved or kept
	counted  bool             // used is known
	exact    bool             // it was counted, or every change since then is in it
	reserved map[Digest]int64 // the part of used that is not published yet
	kept     map[Digest]int64 // the part of used that drafts take which were kept
	removed  tally            // by eviction and by operators since the start
	beside   beside
}

// tally is an amount of content.
type tally struct{ bytes, files int64 }

func (t tally) minus(u tally) tally { return tally{t.bytes - u.bytes, t.files - u.files} }

// covers says whether t is no less than u.
func (t tally) covers(u tally) bool { return t.bytes >= u.bytes && t.files >= u.files }

// demand is what will need room soon, in bytes.
type demand struct {
	incoming int64 // of downloads that are running
	waiting  int64 // of publications that wait for room
}

// waiter is a publication that waits for room.
type waiter struct {
	digest  Digest
	bytes   int64
	most    int64 // bytes that may be in use with it
	before  int   // passes that had begun before it came
	settled chan struct{}
	err     error
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
		usage:    usage{reserved: make(map[Digest]int64), kept: make(map[Digest]int64), beside: beside{folder: bounds.Folder}},
		deleting: make(map[Digest]chan struct{}), passes: passes{changed: make(chan struct{}), disbelieved: -1},
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

// grow is addIncoming for what may have no end.
func (r *room) grow(n int64) error {
	r.mu.Lock()
	expected := r.demand.incoming + n
	r.mu.Unlock()
	if most := r.mostForBlobs(); most > 0 && expected > most {
		return r.full("%d bytes are being downloaded, with content whose size nobody gives, and that is more than the whole cache may hold", expected)
	}
	r.addIncoming(n)
	return nil
}

// mostForBlobs is how many bytes may be in use with a blob that is published.
func (r *room) mostForBlobs() int64 {
	most := r.bounds.MaxBytes
	return most - min(most/headShare, maxHead)
}

// waitAndReserve waits until the n bytes of a blob d fit, and reserves them. It
// returns cache.ErrFull if nothing can be removed to make room for them. The
// caller ends the reservation with endReservation.
func (r *room) waitAndReserve(ctx context.Context, d Digest, n int64) error {
	n = r.weight(n)
	return r.await(ctx, &waiter{digest: d, bytes: n, most: r.mostForBlobs()}, false)
}

// reserveAhead is waitAndReserve for a manifest, which goes before all blobs.
func (r *room) reserveAhead(ctx context.Context, d Digest, n int64) error {
	return r.await(ctx, &waiter{digest: d, bytes: r.weight(n), most: r.bounds.MaxBytes}, true)
}

func (r *room) await(ctx context.Context, w *waiter, ahead bool) error {
	if w.most > 0 && w.bytes > w.most {
		return r.full("%d bytes are more than the whole cache may hold", w.bytes)
	}
	w.settled = make(chan struct{})
	r.mu.Lock()
	defer r.mu.Unlock()
	w.before = r.passes.begun // a pass that has already begun may have looked for less
	if ahead {
		r.queue = slices.Insert(r.queue, 0, w)
	} else {
		r.queue = append(r.queue, w)
	}
	r.demand.waiting += w.bytes
	r.serve()
	if r.isQueued(w) {
		r.wake()
		r.mu.Unlock()
		select {
		case <-w.settled:
			r.mu.Lock()
		case <-ctx.Done():
			r.mu.Lock()
			if r.isQueued(w) {
				r.settle(w, context.Cause(ctx))
				r.serve()
			}
		}
	}
	if w.err == nil {
		r.awaitDeletion(w.digest) // none can begin any more
	}
	return w.err
}

// reserveUncounted reserves the n bytes of d if it is not known what is in use.
func (r *room) reserveUncounted(d Digest, n int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.awaitDeletion(d)
	if r.counted {
		return false
	}
	r.addReservation(d, r.weight(n))
	return true
}

func (r *room) isQueued(w *waiter) bool { return slices.Contains(r.queue, w) }

// serve gives room to those who wait for it, as far as there is any. r.mu is
// held.
func (r *room) serve() {
	for len(r.queue) > 0 {
		w := r.queue[0]
		if !r.fits(w) {
			return
		}
		r.give(w)
	}
}

func (r *room) fits(w *waiter) bool {
	return w.most <= 0 || r.counted && r.taken()+w.bytes <= w.most
}

// give gives a waiter its room. r.mu is held.
func (r *room) give(w *waiter) {
	r.settle(w, nil)
	r.addReservation(w.digest, w.bytes)
}

// settle ends a wait. r.mu is held.
func (r *room) settle(w *waiter, err error) {
	r.queue = slices.DeleteFunc(r.queue, func(other *waiter) bool { return other == w })
	r.demand.waiting -= w.bytes
	w.err = err
	close(w.settled)
}

// settleHopeless ends the waits of those for whom a pass could make no room.
// Whoever was only behind them gets what there is. r.mu is held.
func (r *room) settleHopeless() {
	for _, w := range slices.Clone(r.queue) {
		hopeless := r.passes.ended > w.before && (r.passes.vain || r.passes.ended > w.before+maxPasses)
		switch {
		case hopeless && r.fits(w):
			r.give(w)
		case hopeless:
			r.settle(w, r.full("everything in the %d bytes of the cache is pinned or in use", r.bounds.MaxBytes))
		}
	}
	r.serve()
	if len(r.queue) > 0 {
		r.wake()
	}
}

func (r *room) full(format string, of int64) error {
	return &cache.FullError{Bound: cache.MaxSize, Err: fmt.Errorf(format, of)}
}

// addReservation counts the n bytes of d before they are visible on disk. r.mu
// is held.
func (r *room) addReservation(d Digest, n int64) {
	r.reserved[d] += n
	if r.counting != nil {
		r.counting.added[d] += n
	}
	r.addUsed(n)
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
	if r.counting != nil {
		r.counting.added[d] -= n
	}
	r.addUsed(-n)
	r.serve()
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

// subtract reports that content of n bytes is no longer stored. removed says
// whether its files are gone.
func (r *room) subtract(n int64, removed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n = r.weight(n)
	r.addUsed(-n)
	if removed {
		r.noteRemoved(tally{bytes: n, files: 1})
	}
	r.serve()
}

// noteRemoved notes that files are gone. r.mu is held.
func (r *room) noteRemoved(t tally) {
	r.removed.bytes += t.bytes
	r.removed.files += t.files
	r.changedPasses()
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
	return most > 0 && r.taken()+r.demand.waiting+min(r.demand.incoming, most/100*(100-lowWatermark)) > r.mostForBlobs()
}

// excess is by how many bytes what is taken and waits is above the low
// watermark. r.mu is held.
func (r *room) excess() int64 {
	taken := r.taken()
	return min(taken, taken+r.demand.waiting-r.bounds.MaxBytes/100*lowWatermark)
}

// taken is how many bytes of the bound are taken. r.mu is held.
func (r *room) taken() int64 { return r.used + r.beside.bytes() }
