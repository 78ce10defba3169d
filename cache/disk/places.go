package disk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/limits/panics"
)

const (
	// downAfter is how long reads wait for the disk before it counts as down:
	// longer than any read of a disk that is well, and shorter than a client
	// waits.
	downAfter = 5 * time.Second
	// watchesPerOutage is how often it is looked in that time whether a read has
	// come back. A disk that is down is tried again as often.
	watchesPerOutage = 5
	// If it was down less than steadyAfter ago, it is tried again after twice
	// the time, up to maxProbeEvery.
	maxProbeEvery = 30 * time.Second
	// urgentEvery is how often it is tried again while a program that ends waits
	// for it.
	urgentEvery = 200 * time.Millisecond
	steadyAfter = time.Minute
)

// Places say how many operations may be in the kernel at once. Each of them
// holds a thread of the kernel for as long as the disk takes.
type Places struct {
	Reads  int
	Writes int
}

// PlacesFor returns the places for a process that may have so many threads, or
// any number if that is 0, and that runs on so many CPUs.
//
// Disks are fastest with some dozens of operations at once, and reads that the
// page cache answers need a CPU each. A quarter of the threads leaves the rest
// to the runtime and to a log or a resolver that blocks.
func PlacesFor(pids int64, cpus int) Places {
	all := min(max(24+4*cpus, 32), 128)
	if pids > 0 {
		all = int(min(int64(all), max(pids/4, 4)))
	}
	writes := max(all/4, 1)
	return Places{Reads: all - writes, Writes: writes}
}

// places bound the operations that are in the kernel at once, and find out
// whether the disk still answers: it is down when no read has come back for
// downAfter while reads wait, and up again when a probe comes back. While it is
// down, operations fail with cache.ErrDown, those that wait for a place first of
// all. What writes and syncs takes does not count, because they may be slow on a
// healthy disk; so reads and writes have places of their own.
type places struct {
	reads, writes chan struct{}
	log           *slog.Logger
	onDown        func(bool)
	downAfter     time.Duration
	every         time.Duration // between two looks
	probe         func() error  // returns when the disk has answered
	closed        chan struct{}
	urgent        chan struct{} // a disk that is down is to be tried again at once, and often from now on

	state      atomic.Pointer[condition]
	waiting    atomic.Int64 // reads that have not come back
	quietSince atomic.Int64 // since when none has come back, while some wait
	watched    atomic.Bool
	began      time.Time // what quietSince counts from

	mu      sync.Mutex
	mended  time.Time     // when the disk was last down
	backoff time.Duration // before the next probe
}

// condition is whether the disk answers. Another one follows when it is up
// again.
type condition struct {
	failed chan struct{} // closed when it is down
	mended chan struct{} // closed when it is up again
}

func newCondition() *condition {
	return &condition{failed: make(chan struct{}), mended: make(chan struct{})}
}

func (c *condition) isDown() bool {
	select {
	case <-c.failed:
		return true
	default:
		return false
	}
}

func newPlaces(opts Options, probe func() error) *places {
	p := &places{
		reads: make(chan struct{}, opts.Places.Reads), writes: make(chan struct{}, opts.Places.Writes),
		log: opts.Log, onDown: opts.OnDown, downAfter: opts.DownAfter, every: opts.DownAfter / watchesPerOutage,
		probe: probe, closed: make(chan struct{}), urgent: make(chan struct{}, 1), began: time.Now(),
	}
	p.state.Store(newCondition())
	return p
}

var errDown = fmt.Errorf("%w: no read has come back", cache.ErrDown)

// outage returns a channel that is closed when the disk is up again, or nil if
// it is not down.
func (p *places) outage() <-chan struct{} {
	if c := p.state.Load(); c.isDown() {
		return c.mended
	}
	return nil
}

// read takes a place for a read, and waits for it. If it returns nil, the caller
// calls endRead.
func (p *places) read() error {
	if p.waiting.Add(1) == 1 {
		p.quietSince.Store(p.now())
	}
	p.watch()
	if err := p.take(p.reads); err != nil {
		p.waiting.Add(-1)
		return err
	}
	return nil
}

func (p *places) endRead() {
	p.quietSince.Store(p.now())
	p.waiting.Add(-1)
	<-p.reads
}

// tryRead takes a place, if one is free, for what does not wait for the disk:
// many such calls at once take a thread each, too. If it returns true, the caller
// calls endTry.
func (p *places) tryRead() bool {
	select {
	case p.reads <- struct{}{}:
		return true
	default:
		return false
	}
}

func (p *places) endTry() { <-p.reads }

// write takes a place for a write. If it returns nil, the caller calls endWrite.
func (p *places) write() error { return p.take(p.writes) }
func (p *places) endWrite()    { <-p.writes }

func (p *places) take(from chan struct{}) error {
	c := p.state.Load()
	if c.isDown() {
		return errDown
	}
	select {
	case from <- struct{}{}:
		return nil
	default:
	}
	select {
	case from <- struct{}{}:
		return nil
	case <-c.failed:
		return errDown
	}
}

func (p *places) now() int64 { return int64(time.Since(p.began)) }

// watch has it looked at from time to time whether reads come back, while there
// are any.
func (p *places) watch() {
	if !p.watched.Load() && p.watched.CompareAndSwap(false, true) {
		time.AfterFunc(p.every, p.look)
	}
}

func (p *places) look() {
	select {
	case <-p.closed:
		return
	default:
	}
	if p.waiting.Load() > 0 && !p.state.Load().isDown() && time.Duration(p.now()-p.quietSince.Load()) >= p.downAfter {
		p.fail()
	}
	if p.waiting.Load() > 0 && !p.state.Load().isDown() {
		time.AfterFunc(p.every, p.look)
		return
	}
	p.watched.Store(false)
	if p.waiting.Load() > 0 && !p.state.Load().isDown() {
		p.watch() // one has begun meanwhile
	}
}

// fail marks the disk as down, and begins to look whether it is up again.
func (p *places) fail() {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.state.Load()
	if c.isDown() {
		return
	}
	p.backoff = min(2*p.backoff, maxProbeEvery)
	if p.backoff == 0 || time.Since(p.mended) > steadyAfter {
		p.backoff = p.every
	}
	close(c.failed)
	p.log.Error("the disk is down: no read has come back; what is in memory is served, and the rest passes through",
		"waited", p.downAfter, "reads", p.waiting.Load())
	p.onDown(true)
	go p.untilMended(c, p.backoff)
}

// untilMended waits until a probe comes back. A probe that hangs is the only one.
func (p *places) untilMended(c *condition, every time.Duration) {
	began := time.Now()
	for {
		select {
		case <-time.After(every):
		case <-p.urgent:
			every = min(every, urgentEvery)
		case <-p.closed:
			return
		}
		asked := time.Now()
		err := p.probeSafely()
		if time.Since(asked) >= p.downAfter || errors.Is(err, cache.ErrDown) || errors.Is(err, panics.ErrPanic) {
			continue // it has come back, but not as from a disk that is well
		}
		break
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mended = time.Now()
	p.quietSince.Store(p.now()) // those that hang have a chance to come back
	p.state.Store(newCondition())
	close(c.mended)
	p.log.Info("the disk is up again", "down_for", time.Since(began).Round(time.Millisecond))
	p.onDown(false)
	if p.waiting.Load() > 0 {
		p.watch()
	}
}

func (p *places) probeSafely() (err error) {
	defer panics.Catch("looking for the disk", &err)
	return p.probe()
}

// hurry has a disk that is down be tried again at once, and often from now on.
func (p *places) hurry() { signal(p.urgent) }

// close ends the probes.
func (p *places) close() { close(p.closed) }

// later runs do in the background when the disk is up again.
func (p *places) later(do func()) {
	c := p.state.Load()
	go func() {
		defer panics.Report("work at the disk")
		if c.isDown() {
			select {
			case <-c.mended:
			case <-p.closed:
				return
			}
		}
		do()
	}()
}

// closing closes a file. It waits neither for a place nor for a disk that is
// down: then the file is closed later.
func (p *places) closing(do func() error) error {
	if p.outage() == nil {
		select {
		case p.reads <- struct{}{}:
			defer func() { <-p.reads }()
			return do()
		default:
		}
	}
	go func() {
		defer panics.Report("closing a file")
		for p.take(p.reads) != nil {
			select {
			case <-p.state.Load().mended:
			case <-p.closed:
				_ = do()
				return
			}
		}
		defer func() { <-p.reads }()
		_ = do()
	}()
	return nil
}

// await runs do in a goroutine of its own, and returns its result. If ctx ends
// or the disk goes down before, it returns that error at once, and undo gets the
// result when there is one. So nobody hangs because the disk does.
func await[T any](ctx context.Context, p *places, what task, do func() (T, error), undo func(T)) (T, error) {
	var none T
	c := p.state.Load()
	if c.isDown() {
		return none, what.failed(errDown)
	}
	type result struct {
		value T
		err   error
	}
	const (
		running = iota
		over
		left
	)
	var state atomic.Int32
	done := make(chan result, 1)
	go func() {
		value, err := func() (_ T, err error) {
			defer panics.Catch(what.operation, &err)
			return do()
		}()
		if state.CompareAndSwap(running, over) {
			done <- result{value, err}
		} else if err == nil && undo != nil {
			undo(value)
		}
	}()
	var why error
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		why = context.Cause(ctx)
	case <-c.failed:
		why = errDown
	}
	if !state.CompareAndSwap(running, left) {
		r := <-done
		return r.value, r.err
	}
	return none, what.failed(why)
}

// task names what is awaited, for errors.
type task struct {
	operation string
	digest    cache.Digest
}

func (t task) failed(why error) error {
	if t.digest == "" {
		return fmt.Errorf("%s: %w", t.operation, why)
	}
	return fmt.Errorf("%s %s: %w", t.operation, t.digest, why)
}

// awaitError is await for what has no other result.
func awaitError(ctx context.Context, p *places, what task, do func() error) error {
	_, err := await(ctx, p, what, func() (struct{}, error) { return struct{}{}, do() }, nil)
	return err
}
