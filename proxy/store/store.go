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
	"log/slog"
	"sync/atomic"

	lru "github.com/hashicorp/golang-lru/v2"
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
	Blobs cache.Blobs
	// Records hold how many bytes are in use, so that a start need not count
	// them; nil means that it does.
	Records cache.Records
	Memory  Memory
	Bounds  Bounds
	// Usage is called with the number of bytes in use when it changes; it may
	// be nil.
	Usage  func(bytes int64)
	Logger *slog.Logger
}

// Store is the cached content. All methods are safe for concurrent use.
type Store struct {
	blobs     cache.Blobs
	records   cache.Records
	memory    Memory
	log       *slog.Logger
	writes    singleflight.Group // by digest
	unwritten unwritten
	room      *room
	names     *nameSets
	parsing   chan struct{} // held while a name set is made
	lost      atomic.Uint64
	seen      *lru.Cache[Digest, struct{}] // content that was on disk, and that nobody has removed through the Store
}

// New returns a Store. If there is a bound, and the records do not tell how many
// bytes are in use, nothing is published before [Store.Count] has been called.
func New(opts Options) *Store {
	seen, err := lru.New[Digest, struct{}](maxSeen)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	s := &Store{
		seen: seen, names: newNameSets(), parsing: make(chan struct{}, 1),
		blobs: opts.Blobs, records: opts.Records, memory: opts.Memory, log: opts.Logger,
		room: newRoom(opts.Bounds, opts.Blobs.Weight, opts.Usage),
	}
	s.loadUsage()
	return s
}

// Outage returns nil, or, while the disk is down, a channel that is closed when
// it is up again.
func (s *Store) Outage() <-chan struct{} { return s.blobs.Outage() }

// Stat returns the size in bytes of content on disk, or cache.ErrNotFound.
func (s *Store) Stat(ctx context.Context, d Digest) (int64, error) {
	size, err := s.blobs.Stat(ctx, d)
	s.noteLost(err)
	return size, err
}

// Has says whether content is on disk.
func (s *Store) Has(ctx context.Context, d Digest) bool {
	_, err := s.Stat(ctx, d)
	return err == nil
}

// Weight is how many bytes content of that size takes on disk.
func (s *Store) Weight(size int64) int64 { return s.blobs.Weight(size) }

// Create begins a draft. If there is no room at all, it has some made, and
// returns cache.ErrFull if that takes too long. What is written to the draft has
// room made for it in the same way.
func (s *Store) Create(ctx context.Context, want Descriptor) (cache.Draft, error) {
	var draft cache.Draft
	err := s.withRoom(ctx, want.Size, func() (err error) {
		draft, err = s.blobs.Create(ctx, want)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &roomDraft{Draft: draft, s: s, size: want.Size}, nil
}

// Reserve reserves room for the rest of a draft of want. It returns
// cache.ErrFull if there is not so much, or if the content could never fit and
// would only push out other content.
func (s *Store) Reserve(draft cache.Draft, want Descriptor) error {
	if most := s.room.mostForBlobs(); most > 0 && s.Weight(want.Size) > most {
		err := s.room.full("%d bytes are more than the whole cache may hold", want.Size)
		s.noteFull(err)
		return err
	}
	return draft.Reserve()
}

// Publish commits a verified draft of size bytes. It waits until there is room,
// which no client waits for. It returns cache.ErrFull if there is none and
// nothing can be removed.
func (s *Store) Publish(ctx context.Context, d Digest, size int64, draft cache.Draft) error {
	if err := s.room.waitAndReserve(ctx, d, size); err != nil {
		if errors.Is(err, cache.ErrFull) {
			s.noteFull(err)
		}
		return err
	}
	added, err := s.commit(ctx, d, draft)
	s.room.endReservation(d, size, added)
	if err == nil {
		s.room.stored()
	}
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
	s.noteStored(d, added, err)
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
	s.seen.Remove(d)
	s.names.Remove(d)
	s.memory.Delete(d) // or it would be served from memory and never be stored on disk again
	s.room.subtract(size, true)
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
