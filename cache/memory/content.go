package memory

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/dgraph-io/ristretto/v2"

	"github.com/entrepot/entrepot/cache"
)

const (
	// entryOverhead is the cost of an entry besides its bytes: its key, its
	// node, and its share of the tables (TestContentTakesWhatItCosts).
	entryOverhead = 384
	// pageSize is the unit in which Go allocates more than 32 KiB.
	pageSize   = 8 << 10
	smallAlloc = 32 << 10
	// typicalContent is the typical size of a manifest or config in bytes,
	// rounded down. ristretto's frequency sketch needs an estimate of the
	// number of entries.
	typicalContent = 4 << 10
)

// Content stores small immutable content, limited by the memory that it takes.
// It prefers what is requested often, and may drop anything: a miss only costs a
// read from disk. All methods but Close are safe for concurrent use.
type Content struct {
	cache *ristretto.Cache[string, item] // nil stores nothing
	max   int64
}

// item has its digest, because ristretto keeps only hashes of the keys.
type item struct {
	digest  string
	content []byte
}

func (e item) cost() int64 { return Cost(len(e.content)) }

// NewContent returns an empty Content that takes at most maxBytes of memory,
// without what the garbage collector has not collected yet. With zero or less it
// stores nothing. It runs a goroutine until Close.
func NewContent(maxBytes int64) (*Content, error) {
	if maxBytes <= 0 {
		return &Content{}, nil
	}
	kept, err := ristretto.NewCache(&ristretto.Config[string, item]{
		// ristretto recommends ten counters per entry. With few entries, a
		// minimum keeps the sketch from confusing them.
		NumCounters: max(10*maxBytes/typicalContent, 1000),
		MaxCost:     maxBytes,
		BufferItems: 64,
		// Cost has the overhead.
		IgnoreInternalCost: true,
	})
	if err != nil {
		return nil, fmt.Errorf("content in memory: %w", err)
	}
	return &Content{cache: kept, max: maxBytes}, nil
}

// Cost is how many bytes of memory content of n bytes takes: Go rounds each
// allocation up, and the entry itself takes some.
func Cost(n int) int64 {
	if n > smallAlloc {
		return int64(n+pageSize-1)/pageSize*pageSize + entryOverhead
	}
	return int64(n+n/8) + entryOverhead
}

// Get returns the content of d. The caller MUST NOT change it.
func (c *Content) Get(d cache.Digest) ([]byte, bool) {
	e, ok := c.cache.Get(string(d))
	return e.content, ok
}

// Put offers content, which must not be changed afterwards. If the stored
// content is worth more, it is not stored.
func (c *Content) Put(d cache.Digest, content []byte) {
	if c.cache == nil || Cost(len(content)) > c.max {
		return
	}
	if _, ok := c.cache.Get(string(d)); ok {
		return // the same digest means the same content
	}
	if Cost(cap(content)) > Cost(len(content)) {
		content = bytes.Clone(content) // the rest of the buffer would be kept too
	}
	e := item{strings.Clone(string(d)), content} // the digest may be a part of a whole request
	c.cache.Set(e.digest, e, e.cost())
	c.cache.Wait() // what waits to be stored is in no count
}

// Delete deletes the content of d.
func (c *Content) Delete(d cache.Digest) { c.cache.Del(string(d)) }

// Bytes is how much memory the content takes.
func (c *Content) Bytes() int64 { return c.cache.MaxCost() - c.cache.RemainingCost() }

// Limit has Content take n bytes at most, but never more than NewContent
// allowed. It drops what is too much at once, whatever it is: ristretto drops
// only where something else comes. It must be called by one goroutine at a time.
func (c *Content) Limit(n int64) {
	n = min(max(n, 0), c.max)
	if c.cache == nil || n == c.cache.MaxCost() {
		return
	}
	c.cache.UpdateMaxCost(n)
	excess := -c.cache.RemainingCost()
	if excess <= 0 {
		return
	}
	var dropped []string
	c.cache.IterValues(func(e item) (stop bool) {
		dropped = append(dropped, e.digest)
		excess -= e.cost()
		return excess <= 0
	})
	for _, d := range dropped {
		c.cache.Del(d)
	}
	c.cache.Wait()
}

// Wait waits until every Put and Delete that returned before has been applied.
func (c *Content) Wait() { c.cache.Wait() }

// Close stops the goroutine. It MUST be the last call.
func (c *Content) Close() { c.cache.Close() }
