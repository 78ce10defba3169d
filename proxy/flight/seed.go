package flight

import (
	"sync/atomic"

	"github.com/entrepot/entrepot/cache"
)

// Seed is what a download begins with: a kept file, sound up to where it is
// damaged. It is shared, and the file is closed when the last of its users has
// closed it.
type Seed struct {
	file  cache.Kept
	users atomic.Int32
}

// NewSeed returns a seed with one user.
func NewSeed(file cache.Kept) *Seed {
	s := &Seed{file: file}
	s.users.Store(1)
	return s
}

// Hold makes one more user. A nil Seed may be held.
func (s *Seed) Hold() *Seed {
	if s != nil {
		s.users.Add(1)
	}
	return s
}

// Close ends one use.
func (s *Seed) Close() error {
	if s.users.Add(-1) > 0 {
		return nil
	}
	return s.file.Close()
}
