package flight

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/upstream"
)

// ErrBusy says that as many downloads are under way as a group allows.
var ErrBusy = fmt.Errorf("%w: too many downloads are under way", upstream.ErrUnavailable)

// Options bound and observe a Group.
type Options struct {
	// Max is how many downloads may be under way or wait for their turn; each
	// is an open file.
	Max int
	// Running is called with +1 when a download starts and -1 when it is over.
	// It may be nil.
	Running func(delta int)
}

// Group holds the downloads that are under way, by digest. All methods are safe
// for concurrent use.
type Group struct {
	ctx  context.Context // the life of all downloads
	sink Sink
	opts Options
	work sync.WaitGroup

	mu       sync.Mutex
	byDigest map[cache.Digest]*Flight
}

// NewGroup returns a group whose downloads end with ctx.
func NewGroup(ctx context.Context, sink Sink, opts Options) *Group {
	return &Group{ctx: ctx, sink: sink, opts: opts, byDigest: make(map[cache.Digest]*Flight)}
}

// Start says how a download starts.
type StartOptions struct {
	Source   Source
	Observer Observer
	// Log has the attributes that say what is downloaded.
	Log *slog.Logger
	// Again starts a download of content that is kept, because what is kept
	// cannot be read.
	Refetch bool
	// Seed is what the download begins with; nil for nothing.
	Seed *Seed
}

// Join joins the download of want, or starts it; started says which. Where
// want.Size is not known, it is -1. The caller releases the Flight when it has
// read what it wants. A nil Flight without an error means that the content is
// kept by now. ErrBusy means that no more downloads may start.
func (g *Group) Join(want cache.Descriptor, start StartOptions) (f *Flight, started bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f := g.byDigest[want.Digest]; f != nil && !f.hasFailed() { // it may have, and not be gone yet
		f.spool.hold()
		return f, false, nil
	}
	// A download leaves the group after its content is published: without this
	// look, the last to miss it would download it again.
	if !start.Refetch && g.sink.Has(g.ctx, want.Digest) {
		return nil, false, nil
	}
	if len(g.byDigest) >= g.opts.Max {
		return nil, false, fmt.Errorf("%s: %w", start.Source, ErrBusy)
	}
	f = newFlight(want, start.Source, newSpool(want.Digest))
	g.byDigest[want.Digest] = f
	g.run(f, start)
	return f, true, nil
}

// Alone starts a download for the caller alone, which nobody joins. It is not
// kept, and waits for its reader without end. The caller releases the Flight.
func (g *Group) StartPrivate(want cache.Descriptor, start StartOptions) *Flight {
	s := newSpool(want.Digest)
	s.patient = true
	s.open(nil)
	f := newFlight(want, start.Source, s)
	g.run(f, start)
	return f
}

// Get returns the download of d that is under way, nil where there is none. It
// is for looking only: whoever reads joins.
func (g *Group) Get(d cache.Digest) *Flight {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.byDigest[d]
}

// Len is how many downloads are under way that can be joined.
func (g *Group) Len() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.byDigest)
}

// Wait returns when no download is under way. They end with the context of the
// group at the latest.
func (g *Group) Wait() { g.work.Wait() }

// run starts the download that fills f, which holds the spool until it is over
// beside the caller.
func (g *Group) run(f *Flight, start StartOptions) {
	f.spool.hold()
	d := &download{Flight: f, sink: g.sink, observer: start.Observer, log: start.Log, seed: start.Seed.Hold()}
	g.work.Go(func() {
		g.running(+1)
		defer g.running(-1)
		defer close(f.done)
		defer f.spool.release() // after the removal: whoever finds a flight can hold it
		defer g.remove(f)
		expected := max(f.size.announced, 0)
		g.sink.AddIncoming(expected)
		defer g.sink.AddIncoming(-expected)
		d.run(g.ctx)
	})
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
}
