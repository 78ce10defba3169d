package memory_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/cachetest"
	"github.com/entrepot/entrepot/cache/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCache(t *testing.T) {
	cachetest.Suite(t, func(*testing.T) (cache.Blobs, cache.Records) {
		c := memory.New()
		return c.Blobs(), c.Records()
	})
}

func TestCacheDamage(t *testing.T) {
	cachetest.Damage(t, func(*testing.T) (cache.Blobs, func(cache.Digest)) {
		c := memory.New()
		return c.Blobs(), c.Damage
	})
}

func TestCacheFull(t *testing.T) {
	cachetest.Full(t, func(_ *testing.T, room int64) cache.Blobs {
		return memory.NewBounded(room).Blobs()
	})
}
