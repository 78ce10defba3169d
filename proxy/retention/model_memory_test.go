package retention_test

import (
	"sync"

	"github.com/entrepot/entrepot/proxy/retention"
)

// recollection is a Memory that forgets when it is told to, and not by chance.
type recollection struct {
	mu   sync.Mutex
	kept map[retention.Digest][]byte
}

func (r *recollection) Get(d retention.Digest) ([]byte, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	content, ok := r.kept[d]
	return content, ok
}

func (r *recollection) Put(d retention.Digest, content []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept[d] = content
}

func (r *recollection) Delete(d retention.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.kept, d)
}

func (r *recollection) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.kept)
}
