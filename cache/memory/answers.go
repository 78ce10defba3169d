package memory

import (
	"fmt"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// Answers keeps the last answers under their keys, each until its own time is
// up: tags, tokens, and what was found to be absent. All methods are safe for
// concurrent use. It runs no goroutines: what is out of date goes when it is
// asked for, or when it is the one used least recently and room is needed.
//
// lru/expirable was left aside because it has one lifetime for all entries.
type Answers[K comparable, V any] struct {
	kept *lru.Cache[K, answer[V]]
}

type answer[V any] struct {
	value V
	until time.Time
}

// NewAnswers makes an empty Answers of at most size entries; a size below one
// is an error.
func NewAnswers[K comparable, V any](size int) (*Answers[K, V], error) {
	kept, err := lru.New[K, answer[V]](size)
	if err != nil {
		return nil, fmt.Errorf("answers in memory: %w", err)
	}
	return &Answers[K, V]{kept: kept}, nil
}

// Get returns the answer under key while it is good.
func (a *Answers[K, V]) Get(key K) (V, bool) {
	kept, ok := a.kept.Get(key)
	if ok && time.Now().Before(kept.until) {
		return kept.value, true
	}
	if ok {
		// A Put in this instant may be removed too: that costs a question.
		a.kept.Remove(key)
	}
	var none V
	return none, false
}

// Put keeps value for ttl. A ttl of zero or less forgets what was there.
func (a *Answers[K, V]) Put(key K, value V, ttl time.Duration) {
	if ttl <= 0 {
		a.kept.Remove(key)
		return
	}
	a.kept.Add(key, answer[V]{value, time.Now().Add(ttl)})
}

// Delete forgets the answer under key.
func (a *Answers[K, V]) Delete(key K) { a.kept.Remove(key) }
