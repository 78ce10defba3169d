package pull

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/entrepot/entrepot/cache"
)

// Room says how much a cache may keep. Zero means no bound.
type Room struct {
	// MaxBytes is the size of everything kept; MinFree what stays free on the
	// file system, in bytes, as Free tells it.
	MaxBytes, MinFree int64
	Free              func() (int64, error)
	// Pinned says whether the configuration lets an image stay, by its
	// repository and a tag.
	Pinned func(repo Repository, tag string) bool
}

const (
	// lowMark is the part of a bound to which eviction goes down once it
	// starts, in percent: so that it does not run for each blob.
	lowMark = 90
	// lookAround is how often the bounds are looked at without a cause, because
	// others fill the disk too.
	lookAround = time.Minute
	// fruitless is how many passes of eviction a blob waits through, while
	// others take the room that they make.
	fruitless = 4
)

// evictor keeps the cache within its bounds, by image. What it counts are the
// bytes that are published; a blob that was downloaded is published only once
// it fits (see admit), which no client waits for. So the bound holds however
// fast images stream in; what is above it is in flight.
type evictor struct {
	room Room
	// weight is what content of so many bytes takes in the store.
	weight func(size int64) int64
	told   func(bytes int64) // of kept
	wake   chan struct{}
	// sweeping is held by whoever removes content: eviction and purge.
	sweeping sync.Mutex

	mu      sync.Mutex
	counted bool             // kept is known
	kept    int64            // bytes published, or taken and about to be
	pending map[Digest]int64 // of these, what is not published yet
	// deleting are the digests whose content is being deleted, each with what is
	// closed when that is over.
	deleting map[Digest]chan struct{}
	walk     *walk // the count under way; nil while there is none
	coming   int64 // bytes of downloads under way
	waiting  int64 // bytes of those who wait in admit
	begun    int   // passes of eviction
	ended    int
	freed    int64         // by the last pass
	passed   chan struct{} // closed when the next pass ends
}

// walk is a count of what lies on disk. What came since it began counts by
// itself, whether the walk passes it or not.
type walk struct {
	came  map[Digest]bool
	bytes int64 // of these
}

func newEvictor(room Room, weight func(int64) int64, told func(int64)) *evictor {
	return &evictor{
		room: room, weight: weight, told: told, wake: make(chan struct{}, 1), passed: make(chan struct{}),
		pending: make(map[Digest]int64), deleting: make(map[Digest]chan struct{}),
	}
}

// rouse asks for a look at the bounds.
func (e *evictor) rouse() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// expect notes that n more bytes are being downloaded, or no longer are, so
// that eviction goes ahead of them.
func (e *evictor) expect(n int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.coming += n
	if n > 0 && e.tight() {
		e.rouse()
	}
}

// admit waits until the n bytes of d fit, and takes them. It returns
// cache.ErrFull where nothing can go for them. The caller says with settle how
// it went on.
func (e *evictor) admit(ctx context.Context, d Digest, n int64) error {
	n = e.weight(n)
	most := e.room.MaxBytes
	if most > 0 && n > most {
		return fmt.Errorf("%w: %d bytes are more than all that may be kept", cache.ErrFull, n)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	// Only a pass that begins later knows of this need.
	asked := e.begun
	e.waiting += n
	defer func() { e.waiting -= n }()
	for e.awaitDeletion(d); most > 0 && (!e.counted || e.kept+n > most); e.awaitDeletion(d) {
		if e.ended > asked && (e.freed == 0 || e.ended > asked+fruitless) {
			return fmt.Errorf("%w: of %d bytes everything is pinned or in use", cache.ErrFull, most)
		}
		e.rouse()
		passed := e.passed
		e.mu.Unlock()
		select {
		case <-passed:
			e.mu.Lock()
		case <-ctx.Done():
			e.mu.Lock()
			return context.Cause(ctx)
		}
	}
	e.take(d, n)
	return nil
}

// squeeze takes the n bytes of d whether they fit or not, which is for
// manifests: they are small, and their clients wait.
func (e *evictor) squeeze(d Digest, n int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.awaitDeletion(d)
	e.take(d, e.weight(n))
	if e.tight() {
		e.rouse()
	}
}

// take counts the n bytes that d takes, which are about to be published: before they
// can be seen on disk. e.mu is held.
func (e *evictor) take(d Digest, n int64) {
	e.change(n)
	e.pending[d] = n
	if e.walk != nil {
		e.walk.came[d] = true
		e.walk.bytes += n
	}
}

// settle ends what admit or squeeze began: d was published, or was not.
func (e *evictor) settle(d Digest, published bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.pending[d]
	delete(e.pending, d)
	if published {
		return
	}
	e.change(-n)
	if e.walk != nil {
		delete(e.walk.came, d)
		e.walk.bytes -= n
	}
}

// beginDelete says that the content of d is about to be deleted, and false
// where it is just being published. What is published later waits for the end.
func (e *evictor) beginDelete(d Digest) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, coming := e.pending[d]; coming {
		return false
	}
	e.deleting[d] = make(chan struct{})
	return true
}

func (e *evictor) endDelete(d Digest) {
	e.mu.Lock()
	defer e.mu.Unlock()
	close(e.deleting[d])
	delete(e.deleting, d)
}

// awaitDeletion returns when d is not being deleted. e.mu is held before and
// after, and not while it waits.
func (e *evictor) awaitDeletion(d Digest) {
	for over := e.deleting[d]; over != nil; over = e.deleting[d] {
		e.mu.Unlock()
		<-over
		e.mu.Lock()
	}
}

// shrank notes that content of n bytes was deleted.
func (e *evictor) shrank(n int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.change(-e.weight(n))
}

// change counts n more bytes as kept. e.mu is held.
func (e *evictor) change(n int64) {
	e.kept += n
	tell(e.told, e.kept)
}

// tight says that there is no room for all that is coming. Of the downloads
// only a part counts, or the many small ones would empty a small cache. e.mu is
// held.
func (e *evictor) tight() bool {
	most := e.room.MaxBytes
	return most > 0 && e.kept+e.waiting+min(e.coming, most/100*(100-lowMark)) > most
}

// over is how many bytes have to go.
func (e *evictor) over() int64 {
	e.mu.Lock()
	var over int64
	if e.tight() {
		over = min(e.kept, e.kept+e.waiting-e.room.MaxBytes/100*lowMark)
	}
	e.mu.Unlock()
	if least := e.room.MinFree; least > 0 && e.room.Free != nil {
		if free, err := e.room.Free(); err == nil && free < least {
			over = max(over, least+least/100*(100-lowMark)-free)
		}
	}
	return over
}

func (e *evictor) begin() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.begun++
}

func (e *evictor) end(freed int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended, e.freed = e.begun, freed
	close(e.passed)
	e.passed = make(chan struct{})
}

// count lets pass go over everything that lies on disk, and takes the sum for
// what is kept: it is exact but for what others take out of the folder
// meanwhile. The caller holds sweeping.
func (e *evictor) count(pass func(see func(d Digest, size int64)) error) error {
	w := &walk{came: make(map[Digest]bool)}
	e.mu.Lock()
	for d, n := range e.pending {
		w.came[d] = true
		w.bytes += n
	}
	e.walk = w
	e.mu.Unlock()
	var total int64
	err := pass(func(d Digest, size int64) {
		e.mu.Lock()
		defer e.mu.Unlock()
		if !w.came[d] {
			total += e.weight(size)
		}
	})
	e.mu.Lock()
	defer e.mu.Unlock()
	e.walk = nil
	if err != nil {
		return err
	}
	e.change(total + w.bytes - e.kept)
	e.counted = true
	return nil
}

// runEvictor looks at the bounds when roused, and now and then.
func (p *Puller) runEvictor(ctx context.Context) {
	tick := time.NewTicker(lookAround)
	defer tick.Stop()
	p.countKept(ctx)
	for {
		p.evictor.begin()
		p.evictor.end(p.relieve(ctx))
		select {
		case <-p.evictor.wake:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// countKept counts what the blobs hold. At the start nothing waits for it but
// the publishing of downloads.
func (p *Puller) countKept(ctx context.Context) {
	p.evictor.sweeping.Lock()
	defer p.evictor.sweeping.Unlock()
	err := p.evictor.count(func(see func(Digest, int64)) error {
		return p.opts.Blobs.Walk(ctx, func(d Digest, size int64) bool { see(d, size); return true })
	})
	if err != nil && ctx.Err() == nil {
		p.log.Error("the cache cannot be counted", "error", err)
	}
}

// relieve evicts what is too much.
func (p *Puller) relieve(ctx context.Context) (freed int64) {
	over := p.evictor.over()
	if over <= 0 {
		return 0
	}
	freed, err := p.evict(ctx, over)
	if ctx.Err() != nil {
		return freed
	}
	if err != nil {
		p.log.Error("eviction failed", "error", err)
	}
	p.log.Info("evicted", "wanted_bytes", over, "freed_bytes", freed)
	return freed
}
