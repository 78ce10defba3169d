package memory

import (
	"fmt"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// Answers stores values that expire, each after its own time: tags, tokens, and
// what is known to be absent. All methods are safe for concurrent use. It runs
// no goroutines: an expired value is removed when it is read, or when it is the
// least recently used and room is needed.
//
// It does not use lru/expirable, which has one lifetime for all entries.
type Answers[K comparable, V any] struct {
	cache *lru.Cache[K, entry[V]]
}

type entry[V any] struct {
	value   V
	expires time.Time
}

// NewAnswers returns an empty Answers of at most size entries. A size below one
// is an error.
func NewAnswers[K comparable, V any](size int) (*Answers[K, V], error) {
	kept, err := lru.New[K, entry[V]](size)
	if err != nil {
		return nil, fmt.Errorf("answers in memory: %w", err)
	}
	return &Answers[K, V]{cache: kept}, nil
}

// Get returns the value under key unless it has expired.
func (a *Answers[K, V]) Get(key K) (V, bool) {
	kept, ok := a.cache.Get(key)
	if ok && time.Now().Before(kept.expires) {
		return kept.value, true
	}
	if ok {
		// A concurrent Put may be removed, too. That only costs a request.
		a.cache.Remove(key)
	}
	var none V
	return none, false
}

// Put stores value for ttl. A ttl of zero or less deletes the current value.
func (a *Answers[K, V]) Put(key K, value V, ttl time.Duration) {
	if ttl <= 0 {
		a.cache.Remove(key)
		return
	}
	a.cache.Add(key, entry[V]{value, time.Now().Add(ttl)})
}

// Delete deletes the value under key.
func (a *Answers[K, V]) Delete(key K) { a.cache.Remove(key) }
