package cache

import (
	"fmt"
	"hash"
)

// CloneHash returns a copy of a hash, which goes on by itself.
func CloneHash(h hash.Hash) (hash.Hash, error) {
	cloner, ok := h.(hash.Cloner)
	if !ok {
		return nil, fmt.Errorf("a %T can't be copied", h)
	}
	return cloner.Clone()
}
