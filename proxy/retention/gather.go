package retention

import (
	"context"
	"errors"
	"time"

	"github.com/entrepot/entrepot/cache"
)

const (
	// imagesAtOnce is how many images are evicted together at most: making records
	// durable costs the same for one as for many. gatherFor is how long they are
	// gathered: somebody may wait for the room.
	imagesAtOnce = 256
	gatherFor    = 100 * time.Millisecond
)

// gathered are images that are off the records, and whose content is deleted when
// that is durable. The first is deleted alone, then two, then four: whoever waits
// for room gets the first soon.
type gathered struct {
	removal
	images, most int
	bytes, files int64 // of the content
	since        time.Time
	err          error // of the last time that they were removed
}

func (g *gathered) isFull() bool {
	return g.images >= g.most || g.images > 0 && time.Since(g.since) >= gatherFor
}

// gather takes an image off the records, unless it is needed after all.
func (r *Retention) gather(s *snapshot, g *gathered, next image) {
	removed, ok := s.evict(next)
	if !ok {
		return
	}
	if g.images++; g.images == 1 {
		g.since = time.Now()
	}
	g.blobs = append(g.blobs, removed.blobs...)
	for _, d := range removed.blobs {
		g.bytes += r.store.Weight(s.sizes[d])
		g.files++
	}
}

// removeGathered deletes the content of what is gathered, and leaves its error in
// g. What it frees is reported even if that is nothing, because the content was
// gone already.
func (r *Retention) removeGathered(ctx context.Context, s *snapshot, g *gathered) (freed int64) {
	if g.images == 0 {
		return 0
	}
	freed, g.err = r.deleteContent(ctx, s, g.removal)
	r.evicted(freed)
	more := min(2*g.most, imagesAtOnce)
	if errors.Is(g.err, cache.ErrFull) {
		more = 1
	}
	*g = gathered{most: more, err: g.err}
	return freed
}
