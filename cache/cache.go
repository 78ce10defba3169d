// Package cache defines the contracts of what a mirror stores: immutable
// content by digest ([Blobs]) and small mutable values by key ([Records]).
// Package cachetest has the tests that every implementation runs.
package cache

import (
	"context"
	"errors"
	"hash"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Digest names content by algorithm and hash, as in sha256:….
type Digest = digest.Digest

// Descriptor names content by media type, digest and size in bytes.
type Descriptor = ocispec.Descriptor

var (
	// ErrNotFound says that the cache does not have what was requested.
	ErrNotFound = errors.New("not in the cache")
	// ErrFull says that there is no room for more: the disk is full, or a quota
	// or the configured limit is reached. What was written so far stays
	// readable.
	ErrFull = errors.New("no room in the cache")
	// ErrMismatch says that content does not have the digest or size that was
	// announced.
	ErrMismatch = errors.New("content does not match its descriptor")
	// ErrQuarantined says, together with ErrMismatch, that this call has
	// quarantined the content. If several calls find the same damage, exactly
	// one of them gets it, which makes it suitable for counting.
	ErrQuarantined = errors.New("the content was quarantined")
	// ErrUnproven says, together with ErrMismatch, that bytes which a Check
	// allowed before may be damaged as well.
	ErrUnproven = errors.New("what was passed before is not proven")
	// ErrDown says that the disk does not answer: it may be that nothing is
	// wrong with what is stored. It is not ErrNotFound.
	ErrDown = errors.New("the disk is down")
	// ErrUnreadable says that the disk or file system can't return what was
	// written.
	ErrUnreadable = errors.New("the disk can't read it")
	// ErrLocked says that another process has the cache folder open.
	ErrLocked = errors.New("the cache is in use by another process")
)

// Blobs is a store of immutable content, by digest.
//
// All methods are safe for concurrent use. Errors wrap ErrNotFound or ErrFull
// where a method's comment says so. All errors name the operation and the
// digest.
type Blobs interface {
	// Open returns the content with digest d, or ErrNotFound. Content whose
	// size is not the size it was published with MUST be quarantined and
	// reported as ErrNotFound.
	Open(ctx context.Context, d Digest) (PublishedBlob, error)

	// Stat returns the size in bytes of the content with digest d without
	// opening it, or ErrNotFound.
	Stat(ctx context.Context, d Digest) (int64, error)

	// Create starts a draft of want.Digest. want.Size is the expected size in
	// bytes, or -1 if it is not known. Two drafts of one digest MUST NOT affect
	// each other. Create returns ErrFull if there is no room at all, and an
	// error if the digest's algorithm is not available. It reserves nothing.
	Create(ctx context.Context, want Descriptor) (Draft, error)

	// Resume continues a draft that was kept: nothing of it is in the prefix,
	// everything is in its pieces. It returns ErrNotFound if there is none. The
	// draft no longer counts as kept, but if the process ends it still is.
	Resume(ctx context.Context, d Digest) (Draft, KeptDraft, error)

	// Kept describes the draft of d that was kept, if there is one. It does not
	// wait for the disk.
	Kept(d Digest) (KeptDraft, bool)

	// AllKept describes the drafts that were kept, in no particular order. It
	// does not wait for the disk.
	AllKept() []KeptDraft

	// DropKept removes the draft of d that was kept at that time, or, if that is
	// zero, at any. It is not an error if there is none. One that was resumed, or
	// kept anew, since then MUST stay.
	DropKept(ctx context.Context, d Digest, keptAt time.Time) error

	// Delete removes the content with digest d from the store. Readers that
	// have it open MUST be able to finish. Deleting absent content is not an
	// error.
	Delete(ctx context.Context, d Digest) error

	// Verify reads the content with digest d and checks the digest. It calls
	// pace with each number of bytes that it is about to read. pace may wait,
	// and may end the call with an error. Verify returns the size in bytes, or
	// ErrNotFound. Damaged content MUST be quarantined, so that it is no longer
	// served, and reported as ErrMismatch with ErrQuarantined.
	Verify(ctx context.Context, d Digest, pace func(n int) error) (int64, error)

	// Weight returns how many bytes content of size bytes takes in the store,
	// including anything stored with it.
	Weight(size int64) int64

	// Walk calls fn for every published digest and its size in bytes, in no
	// particular order, until fn returns false or ctx ends. Content that is
	// published or deleted meanwhile may be visited or not.
	Walk(ctx context.Context, fn func(d Digest, size int64) bool) error

	// Mark returns a mark of what is published. It MUST be another one once this
	// process or anybody else has added or removed content. It is empty if that
	// can't be told. The work for it MUST NOT grow with the content.
	Mark(ctx context.Context) string

	// Outage returns nil, or, while the disk is down, a channel that is closed
	// when it is up again. As long, all that needs the disk returns ErrDown at
	// once.
	Outage() <-chan struct{}
}

// Blob is open content. Only one goroutine at a time may use it, except for
// ReadAt, which is safe for concurrent use. Implementations backed by a file
// also implement syscall.Conn, so that the kernel can send the file.
type Blob interface {
	io.ReadSeekCloser
	io.ReaderAt
	// Size returns the size of the whole content in bytes.
	Size() int64
}

// PublishedBlob is published content that is open. Stored content may become
// damaged, so it has to be checked, piece by piece, before it is read.
type PublishedBlob interface {
	Blob
	// Check returns how many of the n bytes at off are known to be what was
	// published; at least one, unless n is zero or off is the end. It reads the
	// content for that, unless an earlier check still counts, and reads no more
	// than it needs.
	//
	// Content that is damaged there, or can't be read, MUST be reported as
	// ErrMismatch and quarantined, so that it is no longer opened. Exactly one
	// of the calls that report it MUST also return ErrQuarantined. Other parts
	// of the content may still be readable. If a check takes long, bytes may be
	// allowed before it is complete, as those of a draft may be read. Then some
	// at the end MUST be held back until all are known to be right, and if they
	// are not, readers that got any MUST get ErrUnproven. Content MUST also be
	// checked if it was deleted or quarantined after it was opened. Check does
	// not move the offset of Read. It is safe for concurrent use.
	Check(ctx context.Context, off, n int64) (sound int64, err error)
	// InvalidateChecks makes earlier checks count no longer, because reading
	// checked bytes has failed.
	InvalidateChecks()
}

// Draft is content that has not been verified yet, in pieces that are written in
// any order. Its prefix are the bytes from the start on that were hashed.
//
// Write, Advance, Reserve, Commit, Keep and Close are called by one goroutine at
// a time. All others may be called concurrently with them and with each other.
// Parts of the content that are written concurrently do not overlap.
type Draft interface {
	// Write appends to the prefix. It returns ErrFull if there is no room; what
	// was written before stays readable. After ErrDown, the bytes may be read
	// until the disk is up again. A write beyond the announced size MUST
	// fail with ErrMismatch.
	io.Writer
	// WriteAt writes a piece behind the prefix. Its errors are those of Write.
	io.WriterAt
	// Advance extends the prefix by at most n bytes of the pieces that follow
	// it, which it reads back, and returns by how many; 0 if none follows. If
	// what it reads is damaged, it drops that piece and returns ErrMismatch.
	Advance(n int) (int, error)
	// Prefix returns a copy of the hash of the prefix, and its length. It does
	// not wait for the disk.
	Prefix() (hash.Hash, int64, error)
	// Drop forgets the pieces from off on, which is not before the end of the
	// prefix. They may be written again.
	Drop(off int64)
	// Reserve reserves room for everything that is not written yet. It returns
	// ErrFull if there is not so much.
	Reserve() error
	// Pieces returns what has been written, the prefix included.
	Pieces() Spans
	// Check returns how many of the n bytes at off may be read; 0 if the first
	// is not there. Pieces of a draft that was kept may have become damaged:
	// each is checked once before it is read, and dropped if it is damaged.
	Check(off, n int64) int64
	// ReadAt reads bytes that have been written.
	io.ReaderAt
	// Reader opens a reader with its own offset, which is at the start. It
	// reads what has been written so far (io.EOF at the end of that, more after
	// the next write) and stays valid after Commit and Close. Its Size is the
	// announced one, or the number of bytes written at the time of the call.
	Reader() (Blob, error)
	// Written returns the length of the prefix in bytes.
	Written() int64
	// Verify MUST fail with ErrMismatch unless the prefix has the announced
	// digest and size. It does not wait for the disk.
	Verify() error
	// Commit MUST verify size and digest (ErrMismatch), then publish atomically
	// and durably. It is not an error if another draft has published the
	// content meanwhile. A draft of the same digest that was kept is removed.
	// After Commit, only Close, ReadAt and Reader may be called. But if it
	// returned ErrFull, it may be called again once there is room.
	Commit() error
	// Save makes everything durable that was written before the call, and note
	// with it: if the process ends without a Close, Resume finds it.
	Save(note []byte) error
	// Keep does what Save does, and makes Close leave the draft behind for
	// Resume. It replaces a draft of the same digest that was kept before.
	// After Keep, only Close, ReadAt and Reader may be called.
	Keep(note []byte) error
	// Close releases the draft. Without a successful Commit or Keep it MUST
	// leave nothing behind, nor anything that was saved. Closing twice is not
	// an error.
	Close() error
}

// KeptDraft describes a draft that was kept.
type KeptDraft struct {
	Digest Digest
	// Size is the announced size of the whole content in bytes.
	Size int64
	// Bytes is how many of them are there. Weight is how many bytes the draft
	// takes in the store, with anything stored with it.
	Bytes, Weight int64
	// Note is what was saved with it.
	Note []byte
	// KeptAt is when it was last saved.
	KeptAt time.Time
}

// A Bucket separates one kind of record from the others.
type Bucket string

// Records is a store of small mutable values: a tag's digest, a subject's
// referrers, which repository has which content, when it was last pulled. If
// the last moments of them are lost, something is checked upstream again, and
// nothing else happens.
//
// All methods are safe for concurrent use. Values are copied when they are
// stored, and callers MUST NOT change the ones they get.
type Records interface {
	// Get returns the value under key, or ErrNotFound. It MUST see every Put
	// and Delete that returned before it was called.
	Get(b Bucket, key string) ([]byte, error)
	// Put sets the value under key. It MUST NOT wait for the disk: writes are
	// grouped and become durable a moment later. The implementation logs write
	// errors; a pull never gets them.
	Put(b Bucket, key string, value []byte)
	// Delete removes key, like Put. Deleting an absent key is not an error.
	Delete(b Bucket, key string)
	// Scan calls fn for every key with the prefix, in the order of keys, until
	// fn returns false. It MUST see every Put and Delete that returned before
	// it was called. fn MUST NOT call the Records.
	Scan(b Bucket, prefix string, fn func(key string, value []byte) bool) error
	// Flush returns when everything put before the call is durable.
	Flush(ctx context.Context) error
	// Close flushes and releases the store.
	Close() error
}
