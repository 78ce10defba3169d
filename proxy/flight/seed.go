package flight

import (
	"sync/atomic"

	"github.com/entrepot/entrepot/cache"
)

// A Seed is what a download begins with: a stored file that is sound up to
// where it is damaged. It is reference-counted, and the file is closed with the
// last reference.
type Seed struct {
	file  cache.PublishedBlob
	users atomic.Int32
}

// NewSeed returns a seed with one reference.
func NewSeed(file cache.PublishedBlob) *Seed {
	s := &Seed{file: file}
	s.users.Store(1)
	return s
}

// Hold adds a reference. It may be called on a nil Seed.
func (s *Seed) Hold() *Seed {
	if s != nil {
		s.users.Add(1)
	}
	return s
}

// Close drops a reference.
func (s *Seed) Close() error {
	if s.users.Add(-1) > 0 {
		return nil
	}
	return s.file.Close()
}
