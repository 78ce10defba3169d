package pull

import (
	"time"

	"github.com/entrepot/entrepot/cache/memory"
)

// maxNegative bounds the negative cache, in entries.
const maxNegative = 16 << 10

// negativeCache remembers for a while what an upstream said it does not have,
// so that a client that keeps asking causes no traffic upstream. It holds only
// explicit "not found" answers, never failures to ask.
type negativeCache struct {
	ttl  time.Duration
	keys *memory.Answers[string, absence]
}

// absence is an upstream's "not found", with the time at which it said so: what
// follows from it is no newer than that.
type absence struct {
	err error
	at  time.Time
}

func newNegativeCache(ttl time.Duration) *negativeCache {
	keys, err := memory.NewAnswers[string, absence](maxNegative)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &negativeCache{ttl: ttl, keys: keys}
}

// put remembers the upstream's "not found" under key.
func (a *negativeCache) put(key string, err error) { a.putSaid(key, err, time.Now(), a.ttl) }

// putSaid remembers a "not found" that was said at a time, until it is of some
// age at most.
func (a *negativeCache) putSaid(key string, err error, at time.Time, most time.Duration) {
	a.keys.Put(key, absence{err, at}, min(a.ttl, most)-time.Since(at))
}

// get returns the remembered "not found" under key, or nil.
func (a *negativeCache) get(key string) error { return a.said(key).err }

// said returns the remembered "not found" under key with its time. Its error is
// nil if there is none.
func (a *negativeCache) said(key string) absence {
	known, _ := a.keys.Get(key)
	return known
}

func (a *negativeCache) delete(key string) { a.keys.Delete(key) }

// forget forgets an absence that is older than that.
func (a *negativeCache) forget(key string, before time.Time) {
	if known := a.said(key); known.err != nil && known.at.Before(before) {
		a.keys.Delete(key)
	}
}
