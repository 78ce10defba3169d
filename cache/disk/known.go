package disk

import (
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/entrepot/entrepot/cache"
)

// knownBytes bounds the memory for what is known of files, in bytes: checksums
// and what is checked, of a terabyte of content in use. What is forgotten is
// checked again.
const knownBytes = 32 << 20

// known are the checks of the files that were opened last, which outlive those
// who opened them.
type known struct {
	mu    sync.Mutex
	files *simplelru.LRU[cache.Digest, *checks]
	bytes int64
}

func newKnown() *known {
	k := &known{}
	forget := func(_ cache.Digest, c *checks) { k.bytes -= c.memory() }
	k.files, _ = simplelru.NewLRU(1<<30, forget) // fails for sizes below one; bytes are the bound
	return k
}

// of returns the checks of an open file.
func (k *known) of(file *kept) *checks {
	is, err := identify(file.file)
	if c := k.get(file.digest, is); c != nil && err == nil {
		return c
	}
	fresh := &checks{
		size:  file.size,
		sums:  loadSums(file.digest, file.path, file.size),
		of:    is,
		sound: make([]uint64, (file.size+64*pieceSize-1)/(64*pieceSize)+1),
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if c, ok := k.files.Get(file.digest); ok && c.isOf(is) {
		return c // another's, who was faster
	}
	k.files.Remove(file.digest)
	k.files.Add(file.digest, fresh)
	for k.bytes += fresh.memory(); k.bytes > knownBytes && k.files.Len() > 1; {
		k.files.RemoveOldest()
	}
	return fresh
}

func (k *known) get(d cache.Digest, is identity) *checks {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c, ok := k.files.Get(d); ok && c.isOf(is) {
		return c
	}
	return nil
}

// drop forgets what is known of a file that has gone bad: whatever gets its
// name next is another one.
func (k *known) drop(d cache.Digest, bad *checks) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c, ok := k.files.Peek(d); ok && c == bad {
		k.files.Remove(d)
	}
}

// isOf says whether these are the checks of that file, changed since or not.
func (c *checks) isOf(is identity) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.gone && c.of.inode == is.inode && c.size == is.size
}

// memory is about what the checks of a file take, in bytes.
func (c *checks) memory() int64 { return 512 + sumsLength(c.size) + 8*int64(len(c.sound)) }
