package flight

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/upstream"
)

const (
	// maxResumes is how often a download is resumed while each attempt gets
	// less than minProgress bytes further. A download that only drips has
	// failed too.
	maxResumes  = 4
	minProgress = 128 << 10
	// bufferSize is the size of one read from a source, in bytes.
	bufferSize = 128 << 10
	// linger is how long a download of which only ranges were read waits for
	// the next reader before it is kept for later.
	linger = 30 * time.Second
	// saveEvery is how often a draft is made durable while it is downloaded, so
	// that a crash loses less.
	saveEvery = 15 * time.Second
	// idleEvery and idleBytes: a download that nobody waits for ends if it has
	// received less in that time, once the source has answered.
	idleEvery = time.Minute
	idleBytes = 64 << 10
)

var (
	// errLost says that what was received can't be used again.
	errLost = errors.New("what was received is dropped")
	// errChanged ends whatever mixes content that has changed with what it was.
	errChanged = fmt.Errorf("%w: it sends other content than before", upstream.ErrUnavailable)
	// errParked ends a download that nobody reads and that nobody wants whole.
	errParked = errors.New("nobody reads it")
	// errAbandoned ends a download that nobody waits for and that gets nowhere.
	errAbandoned = fmt.Errorf("%w: nobody waits for it, and the upstream sends next to nothing", upstream.ErrUnavailable)
)

// download fills a Flight. Its run decides what is requested. Each request and
// the hashing are goroutines of their own.
type download struct {
	*Flight
	group    *Group
	start    StartOptions
	after    <-chan struct{} // closed when the download of the same content before this one is over; may be nil
	known    known
	version  sync.RWMutex // held while something is written; exclusively while what has changed is dropped
	progress progress
	results  chan result
	tasks    sync.WaitGroup // requests and hashing
	saving   sync.WaitGroup
}

// known is what the answers of the source have told. It is held while one is
// looked at.
type known struct {
	sync.Mutex
	told     bool   // to the observer: the size
	etag     string // of what has been received
	incoming int64  // bytes that the sink expects
	reserved bool   // room for all of it, or there is none
}

// progress is how far a download has got. It is guarded by the flight's mu.
type progress struct {
	stored   int64     // bytes received from the source that were not there before
	answered time.Time // when the source answered first
	hashing  bool
	resumes  int
	mark     int64 // of stored, at the last resumption that got further
	// patient means that the last request got nothing in the usual time: the
	// next one waits longer.
	patient bool
	retryAt time.Time // no request is started before; only the download itself uses it
}

// result is how a request ended.
type result struct {
	*request
	err error
}

// run runs the download to its end.
func (d *download) run(ctx context.Context) {
	if d.after != nil {
		select {
		case <-d.after:
		case <-ctx.Done():
		}
	}
	if d.isWanted() {
		d.expect(max(d.size.announced, 0))
	}
	defer func() { d.expect(-d.known.incoming) }()
	err := d.receive(ctx)
	if errors.Is(err, errParked) {
		d.keep(ctx)
		return
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", d.source, causeOf(ctx, err))
		d.start.Log.Warn("download failed", "error", err)
		d.fail(err)
		if !errors.Is(err, errLost) {
			d.keep(ctx)
		}
		return
	}
	if err := d.spool.verify(); err != nil {
		err = fmt.Errorf("%s: %w: %w: %w", d.source, errLost, upstream.ErrInvalidResponse, err)
		d.start.Log.Error("content refused", "error", err)
		d.fail(err)
		return
	}
	var size int64
	d.update(func() {
		size = d.plan.prefix()
		d.state, d.size.total = complete, size
	})
	d.start.Observer.Completed(size)
	d.publish(ctx, size)
}

// refuse ends a download that is started after the group has ended.
func (d *download) refuse(ctx context.Context) {
	if d.start.Seed != nil {
		_ = d.start.Seed.Close() // it was only read
	}
	d.fail(fmt.Errorf("%s: %w", d.source, causeOf(ctx, ctx.Err())))
}

// expect adds to what the sink expects, which is nothing for ranges.
func (d *download) expect(n int64) {
	d.known.incoming += n
	d.group.sink.AddIncoming(n)
}

func (d *download) fail(err error) {
	d.start.Observer.Failed(err)
	d.update(func() { d.state, d.err = failed, err })
}

// causeOf replaces an error that only says that ctx is done by the reason why
// it is.
func causeOf(ctx context.Context, err error) error {
	if ctx.Err() == nil || !errors.Is(err, ctx.Err()) {
		return err
	}
	return fmt.Errorf("%w: this mirror is stopping", upstream.ErrUnavailable)
}

// publish stores verified content when there is room for it.
func (d *download) publish(ctx context.Context, size int64) {
	if d.spool.isInMemory() {
		return // it has no disk space, which has been reported
	}
	d.saving.Wait()
	d.expect(-d.known.incoming) // from here on the sink knows of it
	ctx, end := d.group.beginPublication(ctx, d.Flight)
	defer end()
	if err := d.group.sink.Publish(ctx, d.digest, size, d.spool.draft); err != nil {
		d.notCached(err)
	}
}

// notCached reports that content is delivered to its readers without being
// stored.
func (d *download) notCached(err error) {
	d.start.Observer.NotCached()
	d.group.sink.NotCached()
	level := slog.LevelWarn
	if errors.Is(err, cache.ErrDown) {
		level = slog.LevelDebug // the cache has logged that the disk is down
	}
	d.start.Log.Log(context.Background(), level, "blob could not be cached", "error", err)
}

// receive receives the content until all of it is there and hashed, or, if
// nobody wants all of it, until nobody reads.
func (d *download) receive(ctx context.Context) error {
	if err := d.begin(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer d.tasks.Wait()
	defer cancel()
	clock := newClock(d)
	defer clock.stop()
	for {
		if err := d.reserve(); err != nil {
			return err
		}
		if d.step(ctx) {
			return nil
		}
		if d.isParked() || d.isForsaken() {
			return errParked
		}
		select {
		case <-d.wake:
		case r := <-d.results:
			if err := d.ended(ctx, r); err != nil {
				return err
			}
		case <-clock.tick(d.progress.retryAt):
			if err := clock.due(); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// step starts what is to be requested now. It returns true if there is nothing
// left to do.
func (d *download) step(ctx context.Context) (done bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.plan.isWhole() && len(d.plan.requests) == 0 && !d.progress.hashing {
		if d.spool.hashed() >= d.plan.total {
			return true
		}
	}
	d.startHashing()
	if time.Now().Before(d.progress.retryAt) {
		return false
	}
	for {
		waits, readers := d.waits()
		r, served := d.plan.next(waits)
		if r == nil {
			return false
		}
		if served >= 0 { // the others are next
			d.serveLast(readers[served])
		}
		d.plan.requests = append(d.plan.requests, r)
		d.request(ctx, r)
	}
}

// request starts a request. d.mu is held.
func (d *download) request(all context.Context, r *request) {
	ctx, end := context.WithCancel(all)
	r.end = end
	if d.progress.patient {
		ctx = upstream.WithPatience(ctx)
	}
	ctx = upstream.WithQueued(ctx, func(waits bool) {
		d.mu.Lock()
		defer d.mu.Unlock()
		r.queued = waits
		d.decide()
	})
	if r.beside > 0 {
		ctx = upstream.Beside(ctx, r.beside)
	}
	d.tasks.Go(func() {
		defer r.end()
		err := safely("request of a blob", func() error { return d.fetch(ctx, r) })
		select {
		case d.results <- result{r, err}:
		case <-all.Done(): // nobody waits for it
		}
	})
}

// ended handles the end of a request. It returns an error if the download has
// failed.
func (d *download) ended(ctx context.Context, r result) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.plan.remove(r.request)
	switch {
	case r.err == nil, r.stale, errors.Is(r.err, errNoRoom), errors.Is(r.err, errYielded) && r.beside == 0:
		return nil
	case r.beside > 0 && ctx.Err() == nil:
		d.besideEnded(r)
		return nil
	case ctx.Err() != nil, errors.Is(r.err, errLost):
		return r.err
	case d.state == waiting && !r.open && errors.Is(r.err, upstream.ErrInvalidResponse):
		// There may be no such range, or no ranges at all. Only the whole
		// content tells.
		d.plan.inOrder, d.plan.fill = true, true
		return nil
	case d.progress.stored >= d.progress.mark+minProgress:
		d.progress.resumes, d.progress.mark = 0, d.progress.stored
	}
	// Without a byte, the source has retried by itself.
	hopeless := !isResumable(r.err) || d.progress.resumes == maxResumes || r.at == r.from && (!r.fill || d.progress.stored == 0)
	switch {
	case d.state == waiting, hopeless && r.fill && d.plan.insisted:
		return r.err
	case hopeless:
		d.giveUp(r)
		return nil
	}
	d.progress.resumes++
	d.progress.patient = r.at == r.from && upstream.IsSlow(r.err)
	d.start.Log.Info("download resumed", "offset", r.at, "error", r.err)
	d.progress.retryAt = time.Now().Add(jitter(time.Duration(d.progress.resumes) * 200 * time.Millisecond))
	return nil
}

// giveUp tells the readers of what could not be fetched. Others go on, with what
// is there. d.mu is held.
func (d *download) giveUp(r result) {
	if r.fill {
		d.plan.fill, d.plan.noFill = false, true
	}
	lost := cache.Span{From: r.at, To: r.to}
	err := fmt.Errorf("%s: %w", d.source, r.err)
	if errors.As(err, new(*upstream.RefusedError)) {
		// What its readers asked for is right: the blob has such a part.
		err = fmt.Errorf("%s: %w: a part of the blob: %v", d.source, upstream.ErrInvalidResponse, r.err) //nolint:errorlint // the refusal is not the client's
	}
	for _, reader := range d.readers {
		for _, span := range reader.wait.spans {
			if span.From >= lost.To || lost.From >= span.To || reader.err != nil {
				continue
			}
			if d.plan.fill {
				reader.wait.patient = true // the fill may get there
			} else {
				reader.err = err
			}
		}
		if r.fill {
			reader.wait.patient = false // it does not
		}
	}
	if d.changed != nil {
		close(d.changed)
		d.changed = nil
	}
}

// isResumable distinguishes a broken connection from an answer.
func isResumable(err error) bool {
	return errors.Is(err, upstream.ErrUnavailable) && !errors.Is(err, upstream.ErrInvalidResponse) && !errors.Is(err, ErrReaderTooSlow)
}

// jitter is about t.
func jitter(t time.Duration) time.Duration { return t/2 + rand.N(t) }

// startHashing hashes the pieces that the prefix has reached. d.mu is held.
func (d *download) startHashing() {
	if d.progress.hashing || !d.spool.isUsable() || d.spool.hashed() >= d.plan.prefix() {
		return
	}
	d.progress.hashing = true
	d.tasks.Go(func() {
		if err := safely("hashing a blob", func() error { d.hash(); return nil }); err != nil {
			d.results <- result{&request{}, err} // it has a place there: it is not started again
		}
	})
}

func (d *download) hash() {
	for {
		n, err := d.spool.advance()
		if err != nil {
			d.takeStock() // it is fetched again
		}
		if n > 0 {
			d.update(func() {}) // some wait for what is hashed
			continue
		}
		d.mu.Lock()
		if d.progress.hashing = d.spool.isUsable() && d.spool.hashed() < d.plan.prefix() && err == nil; !d.progress.hashing {
			d.decide()
			d.mu.Unlock()
			return
		}
		d.mu.Unlock()
	}
}
