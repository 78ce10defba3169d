package retention_test

import (
	"sync"

	"github.com/entrepot/entrepot/proxy/retention"
)

// testMemory is a Memory that drops content on request, and not by chance.
type testMemory struct {
	mu   sync.Mutex
	kept map[retention.Digest][]byte
}

func (r *testMemory) Get(d retention.Digest) ([]byte, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	content, ok := r.kept[d]
	return content, ok
}

func (r *testMemory) Put(d retention.Digest, content []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept[d] = content
}

func (r *testMemory) Delete(d retention.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.kept, d)
}

func (r *testMemory) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.kept)
}
