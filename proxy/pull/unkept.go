package pull

import (
	"sync"
	"sync/atomic"
)

// unkept are manifests that are on record and in memory, but could not be
// written for want of room. They are tried again whenever they are asked for,
// or else a restart would lose what clients have seen kept.
type unkept struct {
	some    atomic.Bool // a hit costs no lock where there are none
	mu      sync.Mutex
	digests map[Digest]bool
}

// maxUnkept bounds them: memory has forgotten the oldest long before.
const maxUnkept = 16 << 10

func (u *unkept) add(d Digest) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.digests == nil || len(u.digests) >= maxUnkept {
		u.digests = make(map[Digest]bool)
	}
	u.digests[d] = true
	u.some.Store(true)
}

func (u *unkept) has(d Digest) bool {
	if !u.some.Load() {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.digests[d]
}

func (u *unkept) remove(d Digest) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.digests, d)
	u.some.Store(len(u.digests) > 0)
}
