package upstream

import (
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// sized holds what was used last, up to a number of entries and of bytes. What a
// registry names may be large, and it is held for each repository that a client
// asks for.
type sized[V any] struct {
	mu     sync.Mutex
	lru    *simplelru.LRU[string, V]
	sizeOf func(V) int
	bytes  int // of all entries with their keys
	most   int
}

// newSized returns an empty one for so many entries and bytes, which are those of
// the keys and what sizeOf returns.
func newSized[V any](entries, most int, sizeOf func(V) int) *sized[V] {
	s := &sized[V]{sizeOf: sizeOf, most: most}
	var err error
	s.lru, err = simplelru.NewLRU(entries, func(key string, v V) { s.bytes -= len(key) + sizeOf(v) })
	if err != nil {
		panic(err) // only if the number is not positive
	}
	return s
}

// Get returns an entry, and notes its use.
func (s *sized[V]) Get(key string) (V, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lru.Get(key)
}

// Add adds an entry, at the cost of those that were used longest ago. One that is
// larger than all may be is not held.
func (s *sized[V]) Add(key string, v V) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lru.Remove(key) // so that it is counted once
	s.bytes += len(key) + s.sizeOf(v)
	s.lru.Add(key, v)
	for s.bytes > s.most {
		s.lru.RemoveOldest()
	}
}

// Remove removes an entry.
func (s *sized[V]) Remove(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lru.Remove(key)
}
