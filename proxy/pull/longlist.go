package pull

import (
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/proxy/referrers"
)

const (
	// longList is the length from which a list is encoded once for all who get it.
	longList = 256
	// maxRecent is how many bytes of lists are held that memory did not take, and
	// maxRecentLists how many lists.
	maxRecent, maxRecentLists = 8 << 20, 256
)

// recentLists are the long lists that were sent last, and that memory did not
// take: there may be little of it, or what it has may be worth more. To encode a
// list takes several times its size for each who asks. The one that was sent last
// is held whatever its size.
type recentLists struct {
	mu    sync.Mutex
	lists *lru.Cache[Digest, referrers.List]
	bytes int
}

func newRecentLists() *recentLists {
	r := &recentLists{}
	var err error
	r.lists, err = lru.NewWithEvict(maxRecentLists, func(_ Digest, l referrers.List) { r.bytes -= len(l.Bytes()) })
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return r
}

func (r *recentLists) get(d Digest) (referrers.List, bool) { return r.lists.Get(d) }

func (r *recentLists) put(d Digest, l referrers.List) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lists.Contains(d) {
		return // the same digest means the same list
	}
	r.bytes += len(l.Bytes())
	r.lists.Add(d, l)
	for r.bytes > maxRecent && r.lists.Len() > 1 {
		r.lists.RemoveOldest()
	}
}

// keepList keeps a long list as it is sent.
func (p *Puller) keepList(rec metadata.Listed) {
	p.store.PutMemory(rec.Digest, rec.List.Bytes())
	if _, took := p.store.ReadMemory(rec.Digest); !took {
		p.lookups.recent.put(rec.Digest, rec.List)
	}
}

// keptList is a long list that has been kept.
func (p *Puller) keptList(d Digest) (referrers.List, bool) {
	if raw, ok := p.store.ReadMemory(d); ok {
		return referrers.ListOf(raw), true
	}
	return p.lookups.recent.get(d)
}

// encodeOnce encodes a long answer, for all who get it. One that cannot be
// encoded is an error to whoever sends it.
func encodeOnce(answer Referrers) Referrers {
	if len(answer.Manifests) > longList && answer.List.IsZero() {
		answer.List, _ = referrers.NewList(answer.Manifests)
	}
	return answer
}
