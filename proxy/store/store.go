// Package store holds the cached content by digest, in memory and on disk, and
// limits the room that it takes. It opens, verifies and publishes content. It
// knows nothing of upstreams or of who may read what, and it does not decide
// what is evicted: if room is short it says so ([Store.EvictionDue]), and
// package retention acts on it.
//
// Its invariants, with the tests that guard them:
//
//   - Content that it returns matches its digest
//     (TestDamagedContentIsNotReturned).
//   - The count of bytes in use is what is on disk, with the drafts that were
//     kept (TestTheCountIsWhatIsOnDisk, TestDraftsThatAreKeptAreCounted).
//   - A blob is published only when it fits (TestABlobWaitsForRoom).
//   - Content is not deleted while it is being published, and a publication
//     waits for a deletion that has begun
//     (TestAPublicationWaitsForADeletionThatHasBegun).
//
// There is one lock, that of the room. It is not held during slow operations.
// Under it, the cache is asked which drafts were kept, and no other lock is
// taken. To delete content, first hold a [metadata.Watch], which protects leased
// content, and then call [Store.Delete], which protects content that is being
// published. Drafts that were kept need neither.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"golang.org/x/sync/singleflight"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/metadata"
)

// Digest is an algorithm and a hash, as in sha256:….
type Digest = metadata.Digest

// Descriptor is a content descriptor: media type, digest and size in bytes.
type Descriptor = metadata.Descriptor

// Memory caches small immutable content. It may drop it at any time.
type Memory interface {
	Get(d Digest) ([]byte, bool)
	Put(d Digest, content []byte)
	Delete(d Digest)
}

// Options are the dependencies and settings of a Store.
type Options struct {
	Blobs  cache.Blobs
	Memory Memory
	Bounds Bounds
	// Usage is called with the number of bytes in use when it changes; it may
	// be nil.
	Usage  func(bytes int64)
	Logger *slog.Logger
}

// Store is the cached content. All methods are safe for concurrent use.
type Store struct {
	blobs     cache.Blobs
	memory    Memory
	log       *slog.Logger
	writes    singleflight.Group // by digest
	unwritten unwritten
	room      *room
}

// New returns a Store. If there is a bound, nothing is published before
// [Store.Count] has been called.
func New(opts Options) *Store {
	return &Store{blobs: opts.Blobs, memory: opts.Memory, log: opts.Logger, room: newRoom(opts.Bounds, opts.Blobs.Weight, opts.Usage)}
}

// Outage returns nil, or, while the disk is down, a channel that is closed when
// it is up again.
func (s *Store) Outage() <-chan struct{} { return s.blobs.Outage() }

// Stat returns the size in bytes of content on disk, or cache.ErrNotFound.
func (s *Store) Stat(ctx context.Context, d Digest) (int64, error) { return s.blobs.Stat(ctx, d) }

// Has says whether content is on disk.
func (s *Store) Has(ctx context.Context, d Digest) bool {
	_, err := s.blobs.Stat(ctx, d)
	return err == nil
}

// Weight is how many bytes content of that size takes on disk.
func (s *Store) Weight(size int64) int64 { return s.blobs.Weight(size) }

// Create begins a draft. It returns cache.ErrFull if there is no room at all.
func (s *Store) Create(ctx context.Context, want Descriptor) (cache.Draft, error) {
	return s.blobs.Create(ctx, want)
}

// Reserve reserves room for the rest of a draft of want. It returns
// cache.ErrFull if there is not so much, or if the content could never fit and
// would only push out other content.
func (s *Store) Reserve(draft cache.Draft, want Descriptor) error {
	if most := s.MaxBytes(); most > 0 && want.Size > most {
		return fmt.Errorf("%w: %d bytes are more than max_size", cache.ErrFull, want.Size)
	}
	return draft.Reserve()
}

// Publish commits a verified draft of size bytes. It waits until there is room,
// which no client waits for. It returns cache.ErrFull if there is none and
// nothing can be removed.
func (s *Store) Publish(ctx context.Context, d Digest, size int64, draft cache.Draft) error {
	if err := s.room.waitAndReserve(ctx, d, size); err != nil {
		return err
	}
	added, err := s.commit(ctx, d, draft)
	s.room.endReservation(d, size, added)
	return err
}

// commit commits a draft, and says whether it adds to what is stored. A manifest
// may be requested as a blob too, and then comes twice. It is counted once.
func (s *Store) commit(ctx context.Context, d Digest, draft cache.Draft) (added bool, err error) {
	for ran := false; !ran; {
		_, err, _ = s.writes.Do(d.String(), func() (any, error) {
			ran = true
			before := s.Has(ctx, d)
			err := draft.Commit()
			added = err == nil && !before
			return nil, err
		})
	}
	s.recountKept(d) // Commit removes the draft that was kept
	return added, err
}

// Delete removes content and its copy in memory, and says whether it is gone.
// It refuses to remove content that is being published.
func (s *Store) Delete(ctx context.Context, d Digest, size int64) bool {
	if !s.room.beginDelete(d) {
		return false
	}
	defer s.room.endDelete(d)
	if err := s.blobs.Delete(ctx, d); err != nil {
		s.log.Error("blob cannot be removed", "digest", d.String(), "error", err)
		return false
	}
	s.memory.Delete(d) // or it would be served from memory and never be stored on disk again
	s.room.subtract(size)
	return true
}

// Verify reads content on disk and quarantines it if it is damaged. pace is
// called with each number of bytes before they are read; it may wait.
func (s *Store) Verify(ctx context.Context, d Digest, size int64, pace func(n int) error) error {
	_, err := s.blobs.Verify(ctx, d, pace)
	if errors.Is(err, cache.ErrQuarantined) {
		s.Quarantined(size)
	}
	if errors.Is(err, cache.ErrMismatch) { // wrong digest, or wrong size (which is also an ErrNotFound)
		s.memory.Delete(d)
	}
	return err
}
