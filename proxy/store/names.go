package store

import (
	"context"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/entrepot/entrepot/proxy/referrers"
)

const (
	// maxNameSets is of how many wide manifests it is remembered what they
	// reference. That is a megabyte and a half for the widest that there are.
	maxNameSets = 8
	// maxWide is the size in bytes of the largest manifest that is read for that.
	maxWide = 8 << 20
)

// nameSets are what wide manifests reference, whose records do not say all of
// it.
type nameSets = lru.Cache[Digest, *referrers.NameSet]

func newNameSets() *nameSets {
	sets, err := lru.New[Digest, *referrers.NameSet](maxNameSets)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return sets
}

// PutNames remembers what a wide manifest references; names may be nil.
func (s *Store) PutNames(d Digest, names *referrers.NameSet) {
	if names != nil {
		s.names.Add(d, names)
	}
}

// Names returns what a wide manifest references. If that is not remembered, it
// reads the manifest. It returns false if the manifest is not stored, or can't be
// read.
func (s *Store) Names(ctx context.Context, mediaType string, d Digest) (*referrers.NameSet, bool) {
	if names, ok := s.names.Get(d); ok {
		return names, true
	}
	// One at a time: it takes a processor for a while, and others are served.
	select {
	case s.parsing <- struct{}{}:
	case <-ctx.Done():
		return nil, false
	}
	defer func() { <-s.parsing }()
	if names, ok := s.names.Get(d); ok {
		return names, true
	}
	content, ok := s.readWide(ctx, d)
	if !ok {
		return nil, false
	}
	names, err := referrers.ReadNameSet(mediaType, referrers.Parse(content))
	if err != nil {
		return nil, false // it was read when it was stored
	}
	s.names.Add(d, names)
	return names, true
}

// EachName calls fn for all that a wide manifest references, until fn returns
// false: its descriptors would take thirty times the memory of the manifest. It
// returns false if the manifest is not stored, or can't be read. For whoever only
// looks for some, Names is enough.
func (s *Store) EachName(ctx context.Context, mediaType string, d Digest, fn func(d Descriptor, isManifest bool) (more bool)) bool {
	content, ok := s.readWide(ctx, d)
	return ok && referrers.EachName(mediaType, referrers.Parse(content), fn) == nil
}

func (s *Store) readWide(ctx context.Context, d Digest) ([]byte, bool) {
	if content, ok := s.memory.Get(d); ok {
		return content, true
	}
	return s.readStored(ctx, d, maxWide)
}
