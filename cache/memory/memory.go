// Package memory implements caches in memory: a whole cache for tests and for
// mirrors without a disk ([New]), content of limited size in front of a slower
// cache ([Content]), and small values that expire ([Answers]).
package memory

import (
	// The algorithms a digest may name (image-spec, descriptor.md, "Digests").
	_ "crypto/sha256"
	_ "crypto/sha512"
	"math"

	"github.com/entrepot/entrepot/cache"
)

// Cache is a cache.Blobs and a cache.Records in memory. It starts no goroutines
// and need not be closed.
type Cache struct {
	blobs   *blobs
	records *records
}

// New returns an empty cache of unlimited size.
func New() *Cache { return NewBounded(math.MaxInt64) }

// NewBounded returns an empty cache whose content and drafts together never
// exceed maxBytes: writes beyond that get cache.ErrFull. Records are not
// counted.
func NewBounded(maxBytes int64) *Cache {
	return &Cache{
		blobs: &blobs{
			available: maxBytes,
			content:   make(map[cache.Digest][]byte),
			kept:      make(map[cache.Digest]*kept),
		},
		records: &records{buckets: make(map[cache.Bucket]map[string][]byte)},
	}
}

// Blobs returns the content of the cache.
func (c *Cache) Blobs() cache.Blobs { return c.blobs }

// Records returns the records of the cache.
func (c *Cache) Records() cache.Records { return c.records }

// Damage flips a bit of stored content that is not empty, as a disk may. It is
// for tests.
func (c *Cache) Damage(d cache.Digest) { c.blobs.damage(d) }
