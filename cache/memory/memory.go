// Package memory keeps things in memory: a whole cache for tests and for
// mirrors without a disk ([New]), content bounded by its bytes before a slower
// cache ([Content]), and small keyed answers that expire ([Answers]).
package memory

import (
	// The algorithms a digest may name (image-spec, descriptor.md, "Digests").
	_ "crypto/sha256"
	_ "crypto/sha512"
	"math"

	"github.com/entrepot/entrepot/cache"
)

// Cache is a cache.Blobs and a cache.Records that last as long as the value.
// It starts no goroutines and needs no closing.
type Cache struct {
	blobs   *blobs
	records *records
}

// New makes an empty cache without a bound.
func New() *Cache { return NewBounded(math.MaxInt64) }

// NewBounded makes an empty cache whose content and drafts together never
// pass maxBytes: what is more gets cache.ErrFull. Records are not counted.
func NewBounded(maxBytes int64) *Cache {
	return &Cache{
		blobs:   &blobs{room: maxBytes, kept: make(map[cache.Digest][]byte)},
		records: &records{buckets: make(map[cache.Bucket]map[string][]byte)},
	}
}

// Blobs is the content of the cache.
func (c *Cache) Blobs() cache.Blobs { return c.blobs }

// Records are the records of the cache.
func (c *Cache) Records() cache.Records { return c.records }

// Damage turns a bit over in content that is kept and not empty, as a disk may:
// it is for tests.
func (c *Cache) Damage(d cache.Digest) { c.blobs.damage(d) }
