package store

import (
	"context"
	"errors"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/metadata"
)

// loadUsage takes the bytes in use from the records. Drafts are not among them:
// the cache knows those itself. If files have come or gone while no process ran,
// everything is counted again, beside everything else.
func (s *Store) loadUsage() {
	if s.records == nil {
		return
	}
	stored, ok := metadata.LoadStored(s.records)
	if !ok {
		return
	}
	if stored.Exact {
		// If this process ends early, the next one must not rely on it. So that
		// is durable before anything is stored.
		metadata.SaveStored(s.records, metadata.StoredBytes{Bytes: stored.Bytes})
		ctx, cancel := context.WithTimeout(context.Background(), usageWait)
		defer cancel()
		stored.Exact = s.records.Flush(ctx) == nil && stored.Mark != "" && stored.Mark == s.blobs.Mark(ctx)
	}
	r := s.room
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counted, r.exact = true, stored.Exact
	r.addUsed(stored.Bytes + r.recountAllKept(s.blobs.AllKept()))
}

// usageWait is how long a start waits for the records, which a disk that is full
// or hangs does not take, and for the mark of what is there, and how long an end
// waits for that. Without them what is in use is counted, beside everything else.
const usageWait = 2 * time.Second

// noteLost notes that the cache has found content of another size than it was
// published with, and set it aside: how many bytes of it were counted is not
// known. They are counted again.
func (s *Store) noteLost(err error) {
	if !errors.Is(err, cache.ErrQuarantined) {
		return
	}
	s.lost.Add(1)
	s.room.mu.Lock()
	defer s.room.mu.Unlock()
	s.room.exact = false
	s.room.wake()
}

// maxSeen bounds what is remembered to have been on disk: more than is replaced
// at once, in a megabyte or two of memory.
const maxSeen = 8 << 10

// noteStored notes that content was published, and whether it was not there just
// before. If it has been there earlier, it was set aside, or somebody else has
// removed the file, and told nobody: it is still counted. So everything is
// counted again.
func (s *Store) noteStored(d Digest, added bool, err error) {
	if err != nil {
		return
	}
	if again, _ := s.seen.ContainsOrAdd(d, struct{}{}); !again || !added {
		return
	}
	s.room.mu.Lock()
	defer s.room.mu.Unlock()
	s.room.exact = false
	s.room.wake()
}

// NeedsCount says whether the bytes in use are not known, or only about: the
// process before this one did not end cleanly.
func (s *Store) NeedsCount() bool {
	s.room.mu.Lock()
	defer s.room.mu.Unlock()
	return !s.room.exact
}

// SaveUsage puts the bytes in use into the records. ended says that nothing will
// be stored or deleted any more.
func (s *Store) SaveUsage(ended bool) {
	if s.records == nil {
		return
	}
	mark := ""
	if ended {
		ctx, cancel := context.WithTimeout(context.Background(), usageWait)
		defer cancel()
		mark = s.blobs.Mark(ctx)
	}
	r := s.room
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.counted {
		return
	}
	published := r.used
	for _, n := range r.kept {
		published -= n
	}
	metadata.SaveStored(s.records, metadata.StoredBytes{Bytes: max(published, 0), Exact: ended && r.exact, Mark: mark})
}
