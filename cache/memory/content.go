package memory

import (
	"fmt"

	"github.com/dgraph-io/ristretto/v2"

	"github.com/entrepot/entrepot/cache"
)

const (
	// typicalContent is the typical size of a manifest or config in bytes,
	// rounded down. ristretto's frequency sketch needs an estimate of the
	// number of entries.
	typicalContent = 4 << 10
	// contentOverhead is the cost of an entry besides its bytes.
	contentOverhead = 256
)

// Content stores small immutable content, limited by its total size. It prefers
// what is requested often, and may drop anything: a miss only costs a read from
// disk. All methods but Close are safe for concurrent use.
type Content struct {
	cache *ristretto.Cache[string, []byte] // nil stores nothing
}

// NewContent returns an empty Content of at most maxBytes. With zero or less it
// stores nothing. It runs goroutines until Close.
func NewContent(maxBytes int64) (*Content, error) {
	if maxBytes <= 0 {
		return &Content{}, nil
	}
	kept, err := ristretto.NewCache(&ristretto.Config[string, []byte]{
		// ristretto recommends ten counters per entry. With few entries, a
		// minimum keeps the sketch from confusing them.
		NumCounters: max(10*maxBytes/typicalContent, 1000),
		MaxCost:     maxBytes,
		BufferItems: 64,
		// Put adds the overhead itself, so that maxBytes means bytes.
		IgnoreInternalCost: true,
	})
	if err != nil {
		return nil, fmt.Errorf("content in memory: %w", err)
	}
	return &Content{cache: kept}, nil
}

// Get returns the content of d. The caller MUST NOT change it.
func (c *Content) Get(d cache.Digest) ([]byte, bool) {
	return c.cache.Get(string(d))
}

// Put offers content, which must not be changed afterwards. Another goroutine
// stores it a moment later, so that a pull never waits: a Get right afterwards
// may miss. Under load, or if the stored content is worth more, it is not
// stored at all.
func (c *Content) Put(d cache.Digest, content []byte) {
	if c.cache == nil {
		return
	}
	if _, ok := c.cache.Get(string(d)); ok {
		return // the same digest means the same content
	}
	c.cache.Set(string(d), content, int64(len(content))+contentOverhead)
}

// Delete deletes the content of d.
func (c *Content) Delete(d cache.Digest) { c.cache.Del(string(d)) }

// Wait waits until every Put that returned before has been accepted or
// rejected.
func (c *Content) Wait() { c.cache.Wait() }

// Close stops the goroutines. It MUST be the last call.
func (c *Content) Close() { c.cache.Close() }
