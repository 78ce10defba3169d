package memory

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/maypok86/otter/v2"

	"github.com/entrepot/entrepot/cache"
)

const (
	// entryOverhead is the cost of an entry besides its bytes: its key, its
	// node, and its share of the tables (TestContentTakesWhatItCosts).
	entryOverhead = 384
	// pageSize is the unit in which Go allocates more than 32 KiB.
	pageSize   = 8 << 10
	smallAlloc = 32 << 10
)

// Content stores small immutable content, limited by the memory that it takes.
// It prefers what is requested often, and may drop anything: a miss only costs a
// read from disk. All methods are safe for concurrent use. It runs no
// goroutines.
type Content struct {
	cache *otter.Cache[string, []byte] // nil stores nothing
	max   int64
}

// NewContent returns an empty Content that takes at most maxBytes of memory,
// without what the garbage collector has not collected yet. With zero or less it
// stores nothing.
func NewContent(maxBytes int64) (*Content, error) {
	if maxBytes <= 0 {
		return &Content{}, nil
	}
	kept, err := otter.New(&otter.Options[string, []byte]{
		MaximumWeight: uint64(maxBytes),
		Weigher:       func(_ string, content []byte) uint32 { return uint32(min(Cost(len(content)), 1<<32-1)) },
		// Whoever puts something evicts what is too much. In the background,
		// megabytes would pile up first.
		Executor: func(fn func()) { fn() },
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
	if c.cache == nil {
		return nil, false
	}
	return c.cache.GetIfPresent(string(d))
}

// Put offers content, which must not be changed afterwards. If the stored
// content is worth more, it is not stored, or not for long.
func (c *Content) Put(d cache.Digest, content []byte) {
	if c.cache == nil || Cost(len(content)) > c.max {
		return
	}
	if _, ok := c.cache.GetIfPresent(string(d)); ok {
		return // the same digest means the same content
	}
	if Cost(cap(content)) > Cost(len(content)) {
		content = bytes.Clone(content) // the rest of the buffer would be kept too
	}
	c.cache.Set(strings.Clone(string(d)), content) // the digest may be a part of a whole request
}

// Delete deletes the content of d.
func (c *Content) Delete(d cache.Digest) {
	if c.cache != nil {
		c.cache.Invalidate(string(d))
	}
}

// Bytes is how much memory the content takes.
func (c *Content) Bytes() int64 {
	if c.cache == nil {
		return 0
	}
	return int64(c.cache.WeightedSize())
}

// Limit has Content take n bytes at most, but never more than NewContent
// allowed. It drops what is too much at once.
func (c *Content) Limit(n int64) {
	if c.cache == nil {
		return
	}
	if n = min(max(n, 0), c.max); uint64(n) != c.cache.GetMaximum() {
		c.cache.SetMaximum(uint64(n))
	}
}

// Wait waits until what is too much has been dropped.
func (c *Content) Wait() {
	if c.cache != nil {
		c.cache.CleanUp()
	}
}

// Close drops everything.
func (c *Content) Close() {
	if c.cache != nil {
		c.cache.InvalidateAll()
	}
}
