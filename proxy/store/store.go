// Package store is what is kept: content by digest, in memory and on disk, and
// the room that it may take. It opens content, proves it and publishes it. It
// knows no upstreams and no rules of who may read what, and it decides nothing
// about what goes: where room is short it says so ([Store.Short]), and package
// retention listens.
//
// Its invariants, each with the test that guards it:
//
//   - What it hands out matches its digest (TestWhatIsDamagedIsNotHandedOut).
//   - What is counted is what lies on disk (TestWhatIsCountedIsWhatIsThere).
//   - A blob is published only once it fits (TestABlobWaitsForRoom).
//   - Content is not deleted while it is being published, and a publication
//     waits for a deletion that has begun
//     (TestAPublicationWaitsForADeletionThatHasBegun).
//
// There is one lock, of the room that is taken. It is not held for anything
// that may take long, and nothing else is locked under it. Whoever deletes
// holds a [metadata.Watch] first, which keeps leased content, and then calls
// [Store.Delete], which keeps what is being published.
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

// Digest names content by algorithm and hash, as in sha256:….
type Digest = metadata.Digest

// Descriptor names content by media type, digest and size in bytes.
type Descriptor = metadata.Descriptor

// Memory keeps small immutable content. It may forget at any time.
type Memory interface {
	Get(d Digest) ([]byte, bool)
	Put(d Digest, content []byte)
	Delete(d Digest)
}

// Options say what a Store works with.
type Options struct {
	Blobs  cache.Blobs
	Memory Memory
	Bounds Bounds
	// Kept is called with the bytes that are kept, when they change; it may be
	// nil.
	Usage  func(bytes int64)
	Logger *slog.Logger
}

// Store is what is kept. All methods are safe for concurrent use.
type Store struct {
	blobs     cache.Blobs
	memory    Memory
	log       *slog.Logger
	writes    singleflight.Group // by digest
	unwritten unwritten
	room      *room
}

// New returns a Store. Nothing is published before [Store.Count] has been
// called, where there is a bound.
func New(opts Options) *Store {
	return &Store{blobs: opts.Blobs, memory: opts.Memory, log: opts.Logger, room: newRoom(opts.Bounds, opts.Blobs.Weight, opts.Usage)}
}

// Stat returns the size in bytes of content on disk, or cache.ErrNotFound.
func (s *Store) Stat(ctx context.Context, d Digest) (int64, error) { return s.blobs.Stat(ctx, d) }

// Has says whether content is on disk.
func (s *Store) Has(ctx context.Context, d Digest) bool {
	_, err := s.blobs.Stat(ctx, d)
	return err == nil
}

// Weight is how many bytes content of size bytes takes.
func (s *Store) Weight(size int64) int64 { return s.blobs.Weight(size) }

// Create begins a draft. It returns cache.ErrFull where there is no room, and
// for what could never be kept, and would take the room of what is.
func (s *Store) Create(ctx context.Context, want Descriptor) (cache.Draft, error) {
	if most := s.MaxBytes(); most > 0 && want.Size > most {
		return nil, fmt.Errorf("%w: %d bytes are more than max_size", cache.ErrFull, want.Size)
	}
	return s.blobs.Create(ctx, want)
}

// Publish commits a proven draft of size bytes, once there is room for it: it
// waits, and no client does. It returns cache.ErrFull where there is none and
// nothing can be removed.
func (s *Store) Publish(ctx context.Context, d Digest, size int64, draft cache.Draft) error {
	if err := s.room.waitAndReserve(ctx, d, size); err != nil {
		return err
	}
	err := draft.Commit()
	s.room.endReservation(d, err == nil)
	return err
}

// Delete removes content, with its copy in memory, and says whether it is gone.
// What is being published stays.
func (s *Store) Delete(ctx context.Context, d Digest, size int64) bool {
	if !s.room.beginDelete(d) {
		return false
	}
	defer s.room.endDelete(d)
	if err := s.blobs.Delete(ctx, d); err != nil {
		s.log.Error("blob cannot be removed", "digest", d.String(), "error", err)
		return false
	}
	s.memory.Delete(d) // or it would be served, and not be fetched and kept again
	s.room.subtract(size)
	return true
}

// Verify reads content on disk, and sets it aside where it is damaged. Pace is
// told each number of bytes that is about to be read; it may wait.
func (s *Store) Verify(ctx context.Context, d Digest, size int64, pace func(n int) error) error {
	_, err := s.blobs.Verify(ctx, d, pace)
	if errors.Is(err, cache.ErrSetAside) {
		s.Quarantined(size)
	}
	if errors.Is(err, cache.ErrMismatch) { // of the size, which is an ErrNotFound too, or of the digest
		s.memory.Delete(d)
	}
	return err
}
