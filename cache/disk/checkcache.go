package disk

import (
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/disk/files"
)

// maxCheckCacheBytes limits the memory for checksums and checks, in bytes. It
// is enough for a terabyte of content in use. What is dropped is checked again.
const maxCheckCacheBytes = 32 << 20

// checkCache holds the checks of the files that were opened last. They outlive
// their readers.
type checkCache struct {
	mu    sync.Mutex
	files *simplelru.LRU[cache.Digest, *checks]
	bytes int64
}

func newKnown() *checkCache {
	k := &checkCache{}
	forget := func(_ cache.Digest, c *checks) { k.bytes -= c.memory() }
	k.files, _ = simplelru.NewLRU(1<<30, forget) // fails only for sizes below one; the limit is by bytes
	return k
}

// load returns the checks of an open file.
func (k *checkCache) load(file *publishedBlob) *checks {
	is, err := file.file.Identify()
	if c := k.get(file.digest, is); c != nil && err == nil {
		return c
	}
	words := (file.size+64*pieceSize-1)/(64*pieceSize) + 1
	fresh := &checks{
		size:     file.size,
		sums:     file.blobs.loadSums(file.digest, file.path, file.size),
		identity: is,
		checked:  make([]uint64, words),
		resident: make([]uint64, words),
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if c, ok := k.files.Get(file.digest); ok && c.describes(is) {
		return c // another call was faster
	}
	k.files.Remove(file.digest)
	k.files.Add(file.digest, fresh)
	for k.bytes += fresh.memory(); k.bytes > maxCheckCacheBytes && k.files.Len() > 1; {
		k.files.RemoveOldest()
	}
	return fresh
}

func (k *checkCache) get(d cache.Digest, is files.Identity) *checks {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c, ok := k.files.Get(d); ok && c.describes(is) {
		return c
	}
	return nil
}

// remove drops the checks of a damaged file: the next file of that name is
// another one.
func (k *checkCache) remove(d cache.Digest, bad *checks) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c, ok := k.files.Peek(d); ok && c == bad {
		k.files.Remove(d)
	}
}

// describes reports whether these are the checks of a file, which may have
// changed since.
func (c *checks) describes(is files.Identity) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.damaged && c.identity.Inode == is.Inode && c.size == is.Size
}

// memory estimates the memory that the checks of a file take, in bytes.
func (c *checks) memory() int64 { return 512 + sumsLength(c.size) + 16*int64(len(c.checked)) }
