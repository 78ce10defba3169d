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
	told func(bytes int64) // of kept
	wake chan struct{}
	// sweeping is held by whoever removes content: eviction and purge.
	sweeping sync.Mutex

	mu      sync.Mutex
	counted bool  // kept is known
	kept    int64 // bytes published, or admitted and about to be
	pending int64 // of these, bytes not published yet
	coming  int64 // bytes of downloads under way
	waiting int64 // bytes of those who wait in admit
	begun   int   // passes of eviction
	ended   int
	freed   int64         // by the last pass
	passed  chan struct{} // closed when the next pass ends
	// since are the digests that manifests have named since a picture was
	// taken; nil while nobody removes.
	since map[Digest]bool
}

func newEvictor(room Room, told func(int64)) *evictor {
	return &evictor{room: room, told: told, wake: make(chan struct{}, 1), passed: make(chan struct{})}
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

// admit waits until n more bytes fit. It returns cache.ErrFull where nothing
// can go for them. The caller says with settle how it went on.
func (e *evictor) admit(ctx context.Context, n int64) error {
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
	for most > 0 && (!e.counted || e.kept+n > most) {
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
	e.change(n)
	e.pending += n
	return nil
}

// settle ends what admit began: n bytes were published, or were not.
func (e *evictor) settle(n int64, published bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pending -= n
	if !published {
		e.change(-n)
	}
}

// grew notes that n bytes were published without having been admitted, which
// is for manifests: they are small, and their clients wait.
func (e *evictor) grew(n int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.change(n)
	if n > 0 && e.tight() {
		e.rouse()
	}
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

// named notes what a manifest names, so that a removal under way spares it.
func (e *evictor) named(m manifestRecord, d Digest) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.since == nil {
		return
	}
	e.since[d] = true
	for _, b := range m.Blobs {
		e.since[b.Digest] = true
	}
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

// count takes what a walk over the blobs found for what is kept. Only a walk
// that nothing moved under is believed: the sums are exact but for what others
// take out of the folder.
func (e *evictor) count(walk func() (int64, error)) error {
	e.mu.Lock()
	before, pending := e.kept, e.pending
	e.mu.Unlock()
	total, err := walk()
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case !e.counted:
		e.change(total) // what came meanwhile is manifests
	case e.kept == before && e.pending == 0 && pending == 0:
		e.change(total - e.kept)
	}
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

// countKept counts once what the blobs hold. Nothing waits for it but the
// publishing of downloads.
func (p *Puller) countKept(ctx context.Context) {
	err := p.evictor.count(func() (total int64, err error) {
		err = p.opts.Blobs.Walk(ctx, func(_ Digest, size int64) bool { total += size; return true })
		return total, err
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
	tell(p.opts.Events.Evicted, freed)
	p.log.Info("evicted", "wanted_bytes", over, "freed_bytes", freed)
	return freed
}
