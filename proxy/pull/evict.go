package pull

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/entrepot/entrepot/proxy/referrers"
)

// Room says how much a cache may keep. Zero means no bound.
type Room struct {
	// MaxBytes is the size of everything kept; MinFree what stays free on the
	// file system, in bytes, as Free tells it.
	MaxBytes, MinFree int64
	Free              func() (int64, error)
	// Pinned says whether an image stays, by its repository and one of its
	// tags, or "" for an image without.
	Pinned func(repo Repository, tag string) bool
}

// lowMark is the part of a bound to which eviction goes down once it starts,
// in percent: so that it does not run for each blob.
const lowMark = 90

// evictor keeps the cache within its bounds, by image.
type evictor struct {
	room  Room
	total atomic.Int64 // bytes kept, as far as they were counted
	wake  chan struct{}

	mu sync.Mutex
	// since are the digests that manifests have named since a picture was
	// taken; nil while nobody evicts.
	since map[Digest]bool
}

// grew notes that n bytes were published.
func (e *evictor) grew(n int64) {
	if total := e.total.Add(n); e.room.MaxBytes > 0 && total > e.room.MaxBytes {
		e.rouse()
	}
}

// rouse asks for a look at the bounds.
func (e *evictor) rouse() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

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

// runEvictor looks at the bounds when roused, and now and then because others
// fill the disk too.
func (p *Puller) runEvictor(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for first := true; ; first = false {
		if over := p.over(first); over > 0 {
			freed, err := p.evict(ctx, over)
			if err != nil && ctx.Err() == nil {
				p.log.Error("eviction failed", "error", err)
			}
			p.log.Info("evicted", "wanted_bytes", over, "freed_bytes", freed)
		}
		select {
		case <-p.evictor.wake:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// over is how many bytes have to go; count says to count the cache anew first.
func (p *Puller) over(count bool) int64 {
	e := &p.evictor
	if count {
		var total int64
		if err := p.opts.Blobs.Walk(p.ctx, func(_ Digest, size int64) bool { total += size; return true }); err != nil {
			p.log.Error("cache cannot be counted", "error", err)
		}
		e.total.Store(total)
	}
	var over int64
	if most := e.room.MaxBytes; most > 0 && e.total.Load() > most {
		over = e.total.Load() - most/100*lowMark
	}
	if least := e.room.MinFree; least > 0 && e.room.Free != nil {
		if free, err := e.room.Free(); err == nil && free < least {
			over = max(over, least+least/100*(100-lowMark)-free)
		}
	}
	return over
}

// evict frees at least want bytes, if there is that much to take: images and
// blobs of no image, least recently pulled first.
func (p *Puller) evict(ctx context.Context, want int64) (freed int64, err error) {
	e := &p.evictor
	e.mu.Lock()
	e.since = make(map[Digest]bool)
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		e.since = nil
		e.mu.Unlock()
	}()
	w, err := p.picture(ctx)
	if err != nil {
		return 0, err
	}
	e.total.Store(w.total)
	images, strays := w.images(), p.strays(w)
	for freed < want && ctx.Err() == nil && len(images)+len(strays) > 0 {
		if len(strays) > 0 && (len(images) == 0 || strays[0].use <= images[0].use) {
			freed += p.discard(ctx, []Digest{strays[0].digest}, w)
			strays = strays[1:]
			continue
		}
		image := images[0]
		images = images[1:]
		if p.pinned(image.root) || image.root.use != p.uses.last(image.root.key()) {
			continue // pinned, or pulled since the picture was taken
		}
		n, err := p.removeImage(ctx, w, image.root)
		freed += n
		if err != nil {
			return freed, err
		}
	}
	return freed, ctx.Err()
}

// picture reads everything that is kept.
func (p *Puller) picture(ctx context.Context) (*warehouse, error) {
	p.uses.flush()
	w := &warehouse{nodes: map[string]*keptNode{}, sizes: map[Digest]int64{}, refs: map[Digest]int{}, held: map[string]int{}}
	err := p.opts.Blobs.Walk(ctx, func(d Digest, size int64) bool {
		w.sizes[d] = size
		w.total += size
		return true
	})
	if err != nil {
		return nil, err
	}
	err = p.opts.Records.Scan(bucketManifest, "", func(key string, value []byte) bool {
		parts := strings.SplitN(key, "\x00", 3)
		n := &keptNode{}
		if len(parts) == 3 && json.Unmarshal(value, &n.rec) == nil {
			n.repo, n.digest = Repository{parts[0], parts[1]}, Digest(parts[2])
			w.nodes[key] = n
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	err = p.opts.Records.Scan(bucketTag, "", func(key string, value []byte) bool {
		parts := strings.SplitN(key, "\x00", 3)
		var rec tagRecord
		if len(parts) == 3 && json.Unmarshal(value, &rec) == nil {
			if n := w.nodes[recordKey(Repository{parts[0], parts[1]}, rec.Descriptor.Digest.String())]; n != nil {
				n.tags = append(n.tags, parts[2])
			}
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	for key, n := range w.nodes {
		n.use = p.uses.last(key)
	}
	w.link(referrers.SubjectOf)
	return w, nil
}

// stray is a blob that no manifest here names.
type stray struct {
	digest Digest
	use    int64
}

func (p *Puller) strays(w *warehouse) []stray {
	var all []stray
	for d := range w.sizes {
		if w.refs[d] == 0 {
			all = append(all, stray{d, p.uses.last(d.String())})
		}
	}
	sortByUse(all)
	return all
}

func (p *Puller) pinned(n *keptNode) bool {
	pinned := p.evictor.room.Pinned
	if pinned == nil {
		return false
	}
	for _, tag := range n.tags {
		if pinned(n.repo, tag) {
			return true
		}
	}
	return pinned(n.repo, "")
}

// removeImage evicts one image and returns the bytes that became free. The
// records go first, and durably: a crash between leaves blobs that nobody
// names, never a manifest without its blobs.
func (p *Puller) removeImage(ctx context.Context, w *warehouse, root *keptNode) (int64, error) {
	gone := w.remove(root)
	var candidates []Digest
	for _, n := range gone {
		for _, tag := range n.tags {
			p.ledger.dropTag(n.repo, tag)
		}
		p.ledger.dropManifest(n.repo, n.digest)
		p.uses.forget(n.key())
		candidates = append(candidates, n.digest)
		for _, b := range n.rec.Blobs {
			candidates = append(candidates, b.Digest)
			if w.held[recordKey(n.repo, b.Digest.String())] == 0 {
				p.ledger.dropMember(n.repo, b.Digest)
			}
		}
	}
	if err := p.opts.Records.Flush(ctx); err != nil {
		return 0, err
	}
	var free []Digest
	for _, d := range candidates {
		if w.refs[d] == 0 {
			free = append(free, d)
		}
	}
	return p.discard(ctx, free, w), nil
}

// discard deletes blobs that nobody has come to name since the picture.
func (p *Puller) discard(ctx context.Context, digests []Digest, w *warehouse) (freed int64) {
	for _, d := range digests {
		size, onDisk := w.sizes[d]
		if !onDisk {
			continue
		}
		p.evictor.mu.Lock()
		wanted := p.evictor.since[d]
		if !wanted {
			if err := p.opts.Blobs.Delete(ctx, d); err != nil {
				p.log.Error("blob cannot be evicted", "digest", d.String(), "error", err)
				wanted = true
			}
		}
		p.evictor.mu.Unlock()
		if wanted {
			continue
		}
		delete(w.sizes, d)
		p.uses.forget(d.String())
		p.evictor.total.Add(-size)
		freed += size
	}
	return freed
}
