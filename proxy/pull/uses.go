package pull

import (
	"context"
	"encoding/binary"
	"sync"
	"time"

	"github.com/entrepot/entrepot/cache"
)

// usesEvery is how often uses go from memory to the records.
const usesEvery = 10 * time.Second

// uses remembers when content was last pulled: manifests by repository and
// digest, blobs by digest. A pull costs a write to a map, nothing more.
type uses struct {
	records cache.Records

	mu    sync.Mutex
	fresh map[string]int64 // Unix nanoseconds, not yet in the records
	// since are the keys that were used since watch; nil while nobody watches.
	since map[string]bool
}

func (u *uses) note(key string) {
	u.noteIf(key, func() bool { return true })
}

// noteIf notes a use if there is something to use: found is called while
// nothing can be evicted (see letGo).
func (u *uses) noteIf(key string, found func() bool) {
	now := time.Now().UnixNano()
	u.mu.Lock()
	defer u.mu.Unlock()
	if !found() {
		return
	}
	u.fresh[key] = now
	if u.since != nil {
		u.since[key] = true
	}
}

// watch takes down what is used until the function that it returns is called.
func (u *uses) watch() (end func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.since = make(map[string]bool)
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.since = nil
	}
}

// last is the time of the last use in Unix nanoseconds, 0 where none is known.
func (u *uses) last(key string) int64 {
	u.mu.Lock()
	at, ok := u.fresh[key]
	u.mu.Unlock()
	if ok {
		return at
	}
	b, err := u.records.Get(bucketUsed, key)
	if err != nil || len(b) != 8 {
		return 0
	}
	return int64(binary.BigEndian.Uint64(b))
}

func (u *uses) forget(key string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.drop(key)
}

// drop is forget. u.mu is held.
func (u *uses) drop(key string) {
	delete(u.fresh, key)
	u.records.Delete(bucketUsed, key)
}

func (u *uses) flush() {
	u.mu.Lock()
	fresh := u.fresh
	u.fresh = make(map[string]int64)
	for key, at := range fresh {
		u.records.Put(bucketUsed, key, binary.BigEndian.AppendUint64(nil, uint64(at)))
	}
	u.mu.Unlock()
}

// run flushes from time to time, and once more at the end.
func (u *uses) run(ctx context.Context) {
	tick := time.NewTicker(usesEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			u.flush()
		case <-ctx.Done():
			u.flush()
			return
		}
	}
}
