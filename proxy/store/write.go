package store

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Put stores verified content on disk, unless it is there already. It is for
// manifests, which are small and have clients waiting, so it does not wait long
// for room. If the content cannot be written, [Store.Retry] tries again later.
func (s *Store) Put(ctx context.Context, desc Descriptor, content []byte) error {
	err := s.write(ctx, desc, content)
	if err != nil {
		s.room.wake()
		s.unwritten.add(desc.Digest)
	}
	return err
}

// PutMemory stores verified content in memory.
func (s *Store) PutMemory(d Digest, content []byte) { s.memory.Put(d, content) }

// ReadMemory returns content that is in memory.
func (s *Store) ReadMemory(d Digest) ([]byte, bool) { return s.memory.Get(d) }

// Retry writes content that Put could not write. It does nothing for other
// content.
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

// IsUnwritten says whether Put could not write content, so that Retry has to.
func (s *Store) IsUnwritten(d Digest) bool { return s.unwritten.has(d) }

// write publishes content. Only one call at a time does so for a digest, so
// that it is counted once.
func (s *Store) write(ctx context.Context, desc Descriptor, content []byte) error {
	_, err, _ := s.writes.Do(desc.Digest.String(), func() (any, error) {
		if s.Has(ctx, desc.Digest) {
			return nil, nil
		}
		draft, err := s.Create(ctx, desc)
		if err != nil {
			return nil, err
		}
		defer draft.Close()
		if err := draft.Reserve(); err != nil {
			return nil, err
		}
		if _, err := draft.Write(content); err != nil {
			return nil, err
		}
		if err := s.reserveManifest(ctx, desc); err != nil {
			return nil, err
		}
		err = draft.Commit()
		s.room.endReservation(desc.Digest, desc.Size, err == nil)
		s.noteStored(desc.Digest, true, err)
		s.recountKept(desc.Digest) // Commit removes the draft of a client that asked for the manifest as a blob
		return nil, err
	})
	return err
}

// manifestWait is how long a manifest waits for room. Blobs leave some to it, so
// it has to wait only if more manifests come at once than that is for.
const manifestWait = time.Second

// reserveManifest reserves room for a manifest. While nothing is counted, nobody
// knows whether there is any, and it does not wait for that.
func (s *Store) reserveManifest(ctx context.Context, desc Descriptor) error {
	if s.room.reserveUncounted(desc.Digest, desc.Size) {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, manifestWait, s.room.full("no room was made for the manifest of %d bytes in time", desc.Size))
	defer cancel()
	return s.room.reserveAhead(ctx, desc.Digest, desc.Size)
}

// unwritten are the manifests that are on record and in memory but could not be
// written to disk. Each request for one tries again. Otherwise, a restart would
// lose what clients have seen as cached.
type unwritten struct {
	some    atomic.Bool // avoids the lock for hits while there are none
	mu      sync.Mutex
	digests map[Digest]bool
}

// maxUnwritten bounds them. Memory has dropped the oldest ones long before.
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
