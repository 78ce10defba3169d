package store

import (
	"context"
	"sync"
	"sync/atomic"
)

// Put keeps proven content on disk, where it is not there yet. It is for
// manifests, which are small, and whose clients wait: so it does not wait for
// room. What cannot be written is noted, and written by [Store.Retry].
func (s *Store) Put(ctx context.Context, desc Descriptor, content []byte) error {
	err := s.write(ctx, desc, content)
	if err != nil {
		s.room.wake()
		s.unwritten.add(desc.Digest)
	}
	return err
}

// Remember keeps proven content in memory.
func (s *Store) Remember(d Digest, content []byte) { s.memory.Put(d, content) }

// Retry writes content that Put could not write. It does nothing for others.
func (s *Store) Retry(ctx context.Context, desc Descriptor, content []byte) error {
	if !s.unwritten.has(desc.Digest) {
		return nil
	}
	if err := s.write(ctx, desc, content); err != nil {
		return err
	}
	s.unwritten.remove(desc.Digest) // there is room again
	return nil
}

// write publishes content: once at a time for one digest, so that it is counted
// once.
func (s *Store) write(ctx context.Context, desc Descriptor, content []byte) error {
	_, err, _ := s.writes.Do(desc.Digest.String(), func() (any, error) {
		if s.Has(ctx, desc.Digest) {
			return nil, nil
		}
		draft, err := s.blobs.Create(ctx, desc)
		if err != nil {
			return nil, err
		}
		defer draft.Close()
		if _, err := draft.Write(content); err != nil {
			return nil, err
		}
		s.room.reserve(desc.Digest, desc.Size)
		err = draft.Commit()
		s.room.finish(desc.Digest, err == nil)
		return nil, err
	})
	return err
}

// unwritten are manifests that are on record and in memory, but could not be
// written for want of room. They are tried again whenever they are asked for,
// or else a restart would lose what clients have seen kept.
type unwritten struct {
	some    atomic.Bool // a hit costs no lock where there are none
	mu      sync.Mutex
	digests map[Digest]bool
}

// maxUnwritten bounds them: memory has forgotten the oldest long before.
const maxUnwritten = 16 << 10

func (u *unwritten) add(d Digest) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.digests == nil || len(u.digests) >= maxUnwritten {
		u.digests = make(map[Digest]bool)
	}
	u.digests[d] = true
	u.some.Store(true)
}

func (u *unwritten) has(d Digest) bool {
	if !u.some.Load() {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.digests[d]
}

func (u *unwritten) remove(d Digest) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.digests, d)
	u.some.Store(len(u.digests) > 0)
}
