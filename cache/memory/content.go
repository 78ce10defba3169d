package memory

import (
	"fmt"

	"github.com/dgraph-io/ristretto/v2"

	"github.com/entrepot/entrepot/cache"
)

const (
	// usualContent is what manifests and configs weigh, in bytes, rounded down:
	// the sketch of what is asked for often needs a guess at how many fit.
	usualContent = 4 << 10
	// contentOverhead is what an entry costs beside its bytes.
	contentOverhead = 256
)

// Content keeps small immutable content, bounded by its bytes. It prefers what
// is asked for often, and forgets without asking: a miss costs a read from
// disk, nothing else. All methods but Close are safe for concurrent use.
type Content struct {
	kept *ristretto.Cache[string, []byte] // nil keeps nothing
}

// NewContent makes an empty Content of at most maxBytes; zero or less keeps
// nothing. It runs goroutines until Close.
func NewContent(maxBytes int64) (*Content, error) {
	if maxBytes <= 0 {
		return &Content{}, nil
	}
	kept, err := ristretto.NewCache(&ristretto.Config[string, []byte]{
		// Ten counters an entry is what ristretto advises; few entries need
		// a floor, or the sketch confuses them with one another.
		NumCounters: max(10*maxBytes/usualContent, 1000),
		MaxCost:     maxBytes,
		BufferItems: 64,
		// Put counts the overhead itself, so that maxBytes means bytes.
		IgnoreInternalCost: true,
	})
	if err != nil {
		return nil, fmt.Errorf("content in memory: %w", err)
	}
	return &Content{kept: kept}, nil
}

// Get returns the content of d. The caller MUST NOT change it.
func (c *Content) Get(d cache.Digest) ([]byte, bool) {
	return c.kept.Get(string(d))
}

// Put offers content, which nobody may change from then on. It is kept a
// moment later, by another goroutine, so that a pull never waits: a Get right
// after it may miss. Under load, or where what is kept already is worth more,
// it is not kept at all.
func (c *Content) Put(d cache.Digest, content []byte) {
	if c.kept == nil {
		return
	}
	if _, ok := c.kept.Get(string(d)); ok {
		return // the digest says that it is the same content
	}
	c.kept.Set(string(d), content, int64(len(content))+contentOverhead)
}

// Delete forgets the content of d.
func (c *Content) Delete(d cache.Digest) { c.kept.Del(string(d)) }

// Settle waits until every Put that returned before is kept or refused.
func (c *Content) Settle() { c.kept.Wait() }

// Close stops the goroutines. It MUST be the last call, after all others have
// returned.
func (c *Content) Close() { c.kept.Close() }
