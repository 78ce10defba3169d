package flight

import (
	"cmp"
	"context"
	"fmt"
	"hash"
	"log/slog"
	"sync"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/upstream"
)

// share is how many downloads of one upstream may be under way for each one that
// may still start. Alone it gets three quarters of the places, and however many
// it asks for, others find some.
const share = 3

// ErrBusy means that as many downloads are under way as the group allows.
var ErrBusy = fmt.Errorf("%w: too many downloads are under way", upstream.ErrUnavailable)

// Options are the limits and callbacks of a Group.
type Options struct {
	// Max is how many downloads may be under way or waiting for a connection;
	// each is an open file.
	Max int
	// Small is the size in bytes below which content is fetched whole whatever
	// is read of it, and of the smallest part that is requested beside others. 0
	// means 4 MiB.
	Small int64
	// SideBySide is the size in bytes below which content is fetched over one
	// connection, whatever Connections says. Zero means 32 MiB.
	SideBySide int64
	// Running is called with +1 when a download starts and -1 when it is over.
	// It may be nil.
	Running func(delta int)
}

// A Group holds the downloads that are under way, by digest. All methods are
// safe for concurrent use.
type Group struct {
	ctx  context.Context // ends all downloads
	sink Sink
	opts Options
	work downloads

	memory budget
	single singles

	mu         sync.Mutex
	byDigest   map[cache.Digest]*Flight
	publishing []*publication      // of flights in byDigest, in the order in which they began to wait
	beside     map[besides]*Flight // of those that can't be read from the disk, or are another upstream's
}

// besides is what a download beside another one is for: content is not shared
// between upstreams before it is verified.
type besides struct {
	digest   cache.Digest
	upstream string
}

// NewGroup returns a group whose downloads end with ctx.
func NewGroup(ctx context.Context, sink Sink, opts Options) *Group {
	return &Group{ctx: ctx, sink: sink, opts: opts, byDigest: make(map[cache.Digest]*Flight), beside: make(map[besides]*Flight)}
}

// StartOptions describe a download to start.
type StartOptions struct {
	Source   Source
	Observer Observer
	// Log has the attributes that identify the download.
	Log *slog.Logger
	// Refetch starts a download even if the content is stored, because the
	// stored content cannot be read.
	Refetch bool
	// Seed is what the download begins with; nil means nothing.
	Seed *Seed
	// Look means that only ranges are to be read: nothing is fetched before a
	// Reader says which.
	Look bool
	// Connections is how many requests may fetch all of the content side by
	// side; 0 means one.
	Connections int
	// NoRanges means that the source has lately answered a request for a range
	// with the whole content: what is far ahead of the fill is not asked for
	// beside it, before an answer shows that there are ranges after all.
	NoRanges bool
}

// Join joins the download of want or starts it; started says which. want.Size
// is -1 if it is not known. The caller releases the Flight when it has read
// what it needs. If Join returns a nil Flight and no error, the content is
// already stored. ErrBusy means that no more downloads may start.
func (g *Group) Join(want cache.Descriptor, start StartOptions) (f *Flight, started bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var after <-chan struct{}
	if f := g.byDigest[want.Digest]; f != nil {
		if !f.isOver() {
			f.spool.hold()
			if !start.Look {
				f.Fill()
			}
			return f, false, nil
		}
		after = f.done // it has not been removed yet, and may leave something to take up
	}
	// A download is removed from the group after its content is published.
	// Without this check, the caller could miss both and download the content
	// again.
	if !start.Refetch && g.sink.Has(g.ctx, want.Digest) {
		return nil, false, nil
	}
	if !g.hasPlace(start.Source.Origin().Upstream) {
		return nil, false, fmt.Errorf("%s: %w", start.Source, ErrBusy)
	}
	f = newFlight(want, start.Source, newSpool(want.Digest))
	g.byDigest[want.Digest] = f
	g.run(f, start, after)
	return f, true, nil
}

// JoinBeside joins or starts a download that is not stored, beside the one that
// is: for readers that can't read back what the other has stored, or may not have
// it because it is another upstream's. All of them share it, those of each
// upstream. The caller releases the Flight.
func (g *Group) JoinBeside(want cache.Descriptor, start StartOptions) *Flight {
	g.mu.Lock()
	defer g.mu.Unlock()
	key := besides{want.Digest, start.Source.Origin().Upstream}
	if f := g.beside[key]; f != nil && !f.isOver() && f.holdsStart() {
		f.spool.hold()
		return f
	}
	s := newSpool(want.Digest)
	s.behind.budget = &g.memory
	s.open(nil)
	f := newFlight(want, start.Source, s)
	f.plan.inOrder = true
	g.beside[key] = f
	g.run(f, start, nil)
	return f
}

// holdsStart says whether a reader can still begin at the start of what a
// download has in memory.
func (f *Flight) holdsStart() bool {
	f.spool.mu.Lock()
	defer f.spool.mu.Unlock()
	return f.spool.window.start == 0
}

// StartPrivate starts a download that only the caller reads. It is not stored,
// and waits for its reader without a limit. The caller releases the Flight.
func (g *Group) StartPrivate(want cache.Descriptor, start StartOptions) *Flight {
	f := newFlight(want, start.Source, newSpool(want.Digest))
	f.spool.patient = true
	g.runInMemory(f, start, 0, want.Digest.Algorithm().Hash())
	return f
}

// runInMemory starts a download that is not stored, of what follows the first
// from bytes, whose hash is known.
func (g *Group) runInMemory(f *Flight, start StartOptions, from int64, state hash.Hash) {
	f.spool.behind.budget = &g.memory
	f.spool.toMemory(from, state)
	f.plan.inOrder = true
	if from > 0 {
		f.plan.have.Add(cache.Span{To: from})
	}
	g.run(f, start, nil)
}

// runBehind starts a download for the readers that the one ahead was too fast
// for. The caller releases it.
func (g *Group) runBehind(ahead *Flight, start StartOptions, from int64, state hash.Hash) *Flight {
	want := cache.Descriptor{Digest: ahead.digest, Size: ahead.size.announced}
	f := newFlight(want, start.Source, newSpool(want.Digest))
	f.spool.patient, f.spool.behind.ahead = true, ahead.spool
	start.Seed, start.Look = nil, false
	g.runInMemory(f, start, from, state)
	return f
}

// Get returns the download of d that is under way, or nil. It is for inspection
// only; readers use Join.
func (g *Group) Get(d cache.Digest) *Flight {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.byDigest[d]
}

// Len is the number of downloads under way that can be joined.
func (g *Group) Len() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.byDigest)
}

// Wait returns when no download is under way. All downloads end when the
// group's context is done, at the latest. After that, those that are started
// fail at once, and touch nothing that is stored.
func (g *Group) Wait() { g.work.wait(g.ctx) }

// downloads are those that are under way.
type downloads struct {
	mu   sync.Mutex // held while one is added, so that wait misses none
	over bool
	all  sync.WaitGroup
}

func (w *downloads) begin() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over {
		w.all.Add(1)
	}
	return !w.over
}

func (w *downloads) wait(ctx context.Context) {
	w.mu.Lock()
	w.over = ctx.Err() != nil
	w.mu.Unlock()
	w.all.Wait()
}

// run starts the download that fills f, once the one before is over. Like the
// caller, the download holds the spool until it is over.
func (g *Group) run(f *Flight, start StartOptions, after <-chan struct{}) {
	f.spool.hold()
	f.spool.behind.budget = &g.memory
	f.spool.behind.begin = func(from int64, state hash.Hash) *Flight { return g.runBehind(f, start, from, state) }
	f.plan.sizes = sizes{cmp.Or(g.opts.Small, smallContent), cmp.Or(g.opts.SideBySide, sideBySide)}
	f.plan.doubtful = start.NoRanges
	f.plan.lanes = newLanes(start.Connections, f.size.announced)
	if g.single.has(start.Source.Origin().Upstream) {
		f.plan.lanes.off()
	}
	if !start.Look {
		f.plan.insist()
	}
	start.Seed.Hold()
	d := &download{Flight: f, group: g, start: start, after: after, results: make(chan result, maxRequests+1+max(start.Connections, 1))}
	run, end := d.run, g.work.all.Done
	if !g.work.begin() {
		run, end = d.refuse, func() {}
	}
	go func() {
		defer end()
		g.running(+1)
		defer g.running(-1)
		defer close(f.done)
		defer f.spool.release() // after the removal: a flight in the group can always be held
		defer g.remove(f)
		if err := safely("download", func() error { run(g.ctx); return nil }); err != nil {
			d.fail(fmt.Errorf("%s: %w", d.source, err))
		}
	}()
}

// hasPlace says whether another download of an upstream may start, and makes room
// for it if it can. g.mu is held.
func (g *Group) hasPlace(of string) bool {
	isOurs := func(f *Flight) bool { return f.source.Origin().Upstream == of }
	held := 0
	for _, f := range g.byDigest {
		if isOurs(f) {
			held++
		}
	}
	free := g.opts.Max - len(g.byDigest)
	if held < share*free {
		return true
	}
	if free <= 0 {
		isOurs = func(*Flight) bool { return true }
	}
	return g.parkOne(isOurs) || g.giveUpPublication(isOurs)
}

// park ends a flight that nobody holds but its download, and of which nobody
// wants all, so that nobody joins it any more.
func (g *Group) park(f *Flight) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return f.park()
}

// parkOne makes room for another download, at the cost of one of these. g.mu is
// held.
func (g *Group) parkOne(these func(*Flight) bool) bool {
	for _, f := range g.byDigest {
		if these(f) && f.park() {
			return true
		}
	}
	return false
}

func (f *Flight) park() bool {
	if f.spool.isHeld() {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.plan.fill || f.state != receiving {
		return false
	}
	f.state = parked
	f.decide()
	return true
}

// forsake ends a flight that nobody holds but its download, and of which the
// source has not been asked for anything, so that nobody joins it any more.
func (g *Group) forsake(f *Flight) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f.spool.isHeld() {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state != waiting || !f.plan.isQueued() {
		return false
	}
	f.state = parked
	return true
}

func (g *Group) running(delta int) {
	if g.opts.Running != nil {
		g.opts.Running(delta)
	}
}

func (g *Group) remove(f *Flight) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.byDigest[f.digest] == f {
		delete(g.byDigest, f.digest)
	}
	if key := (besides{f.digest, f.source.Origin().Upstream}); g.beside[key] == f {
		delete(g.beside, key)
	}
}
