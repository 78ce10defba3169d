package flight

import (
	"context"
	"errors"
	"slices"

	"github.com/entrepot/entrepot/cache"
)

// errGivenUp ends the wait of content for room.
var errGivenUp = &cache.FullError{Bound: cache.MaxSize, Err: errors.New("other downloads need the place of one that only waits for room")}

// publication is a download that is complete, and only waits for room in the
// sink. Its readers have what they need, or can read it to the end.
type publication struct {
	of     *Flight
	giveUp context.CancelCauseFunc
}

// beginPublication notes that a flight only waits to be published, until end is
// called.
func (g *Group) beginPublication(ctx context.Context, f *Flight) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	p := &publication{f, cancel}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.publishing = append(g.publishing, p)
	return ctx, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.publishing = slices.DeleteFunc(g.publishing, func(other *publication) bool { return other == p })
		cancel(nil)
	}
}

// giveUpPublication makes room for another download: of these, the one that has
// waited to be published for the shortest time is not stored. A client that
// waits for its bytes goes before what only might be asked for again. g.mu is
// held.
func (g *Group) giveUpPublication(these func(*Flight) bool) bool {
	last := len(g.publishing) - 1
	for last >= 0 && !these(g.publishing[last].of) {
		last--
	}
	if last < 0 {
		return false
	}
	p := g.publishing[last]
	g.publishing = slices.Delete(g.publishing, last, last+1)
	if g.byDigest[p.of.digest] == p.of {
		delete(g.byDigest, p.of.digest)
	}
	p.giveUp(errGivenUp)
	return true
}
