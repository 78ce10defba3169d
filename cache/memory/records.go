package memory

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/entrepot/entrepot/cache"
)

type records struct {
	mu      sync.RWMutex
	buckets map[cache.Bucket]map[string][]byte
}

func (r *records) Get(b cache.Bucket, key string) ([]byte, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	value, ok := r.buckets[b][key]
	if !ok {
		return nil, fmt.Errorf("record %s/%q: %w", b, key, cache.ErrNotFound)
	}
	return value, nil
}

func (r *records) Put(b cache.Bucket, key string, value []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.buckets[b] == nil {
		r.buckets[b] = make(map[string][]byte)
	}
	r.buckets[b][key] = bytes.Clone(value)
}

func (r *records) Delete(b cache.Bucket, key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.buckets[b], key)
}

func (r *records) Scan(b cache.Bucket, prefix string, fn func(key string, value []byte) bool) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var keys []string
	for key := range r.buckets[b] {
		if strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	for _, key := range keys {
		if !fn(key, r.buckets[b][key]) {
			break
		}
	}
	return nil
}

// Pace has nothing to wait for.
func (r *records) Pace(context.Context) {}

// Flush has nothing to do: these records never become durable.
func (r *records) Flush(context.Context) error { return nil }

func (r *records) Close() error { return nil }
