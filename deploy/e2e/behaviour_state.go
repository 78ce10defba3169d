package e2e

import (
	"bytes"
	"compress/gzip"
	"sync"

	fake "github.com/entrepot/entrepot/upstream/upstreamtest"
)

// sets is a set of references that requests share.
type sets struct{ m sync.Map }

func (s *sets) has(ref string) bool { _, ok := s.m.Load(ref); return ok }
func (s *sets) add(ref string)      { s.m.Store(ref, true) }

// turns counts requests.
type turns struct {
	mu sync.Mutex
	n  int
}

func (t *turns) next() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n++
	return t.n
}

func zipped(body []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(body)
	_ = w.Close()
	return b.Bytes()
}

// single is one image without an index.
func (w *world) single() {
	w.root, _ = w.AddImage(w.repo, w.tag, w.layer(1, 40<<10), w.layer(2, 300<<10))
	w.subject = w.root
}

// large says whether a layer is asked for, and not a config.
func (w *world) large(q fake.Request) bool { return w.SizeOf(q.Repo, q.Ref) > 1000 }
