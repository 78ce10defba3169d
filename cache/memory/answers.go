package memory

import (
	"fmt"
	"sync"
	"sync/atomic"
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

	putting sync.Mutex // held while something is put, if there is a bound
	most    int64      // bytes; zero if there is no bound
	bytes   atomic.Int64
	sizeOf  func(K, V) int
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

// NewAnswersWithin is NewAnswers with a bound in bytes as well, by what sizeOf
// returns for each entry: what comes from outside may be large. An entry above the
// bound is not stored.
func NewAnswersWithin[K comparable, V any](size int, most int64, sizeOf func(K, V) int) (*Answers[K, V], error) {
	a := &Answers[K, V]{most: most, sizeOf: sizeOf}
	var err error
	a.cache, err = lru.NewWithEvict(size, func(key K, e entry[V]) { a.bytes.Add(-int64(sizeOf(key, e.value))) })
	if err != nil {
		return nil, fmt.Errorf("answers in memory: %w", err)
	}
	return a, nil
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
	if a.most > 0 {
		a.putting.Lock()
		defer a.putting.Unlock()
		n := int64(a.sizeOf(key, value))
		if a.cache.Remove(key); n > a.most {
			return
		}
		for a.bytes.Add(n) > a.most {
			a.bytes.Add(-n)
			a.cache.RemoveOldest()
		}
	}
	a.cache.Add(key, entry[V]{value, time.Now().Add(ttl)})
}

// Delete deletes the value under key.
func (a *Answers[K, V]) Delete(key K) { a.cache.Remove(key) }
