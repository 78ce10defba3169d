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
	keys *memory.Answers[string, error]
}

func newNegativeCache(ttl time.Duration) *negativeCache {
	keys, err := memory.NewAnswers[string, error](maxNegative)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &negativeCache{ttl: ttl, keys: keys}
}

// put remembers the upstream's "not found" under key.
func (a *negativeCache) put(key string, err error) { a.keys.Put(key, err, a.ttl) }

// get returns the remembered "not found" under key, or nil.
func (a *negativeCache) get(key string) error {
	err, _ := a.keys.Get(key)
	return err
}

func (a *negativeCache) delete(key string) { a.keys.Delete(key) }
