// Package cache holds the contracts of what a mirror keeps: immutable content
// by digest ([Blobs]) and small mutable answers by key ([Records]).
// Package cachetest holds the suite that every implementation runs.
package cache

import (
	"context"
	"errors"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Digest names content by algorithm and hash, as in sha256:….
type Digest = digest.Digest

// Descriptor names content by media type, digest and size in bytes.
type Descriptor = ocispec.Descriptor

var (
	// ErrNotFound says that the cache does not hold what was asked for.
	ErrNotFound = errors.New("not in the cache")
	// ErrFull says that there is no room for more: the disk, the quota or
	// the configured bound is reached. What was written so far stays readable.
	ErrFull = errors.New("no room in the cache")
	// ErrMismatch says that content does not have the digest or the size it
	// was announced with.
	ErrMismatch = errors.New("content does not match its descriptor")
	// ErrSetAside says, beside ErrMismatch, that it was this call that took the
	// content out of the store: of the calls that find the same content
	// damaged it is told one, which may count on it.
	ErrSetAside = errors.New("the content was set aside")
	// ErrUnproven says, beside ErrMismatch, that bytes which were passed before
	// may be damaged as well.
	ErrUnproven = errors.New("what was passed before is not proven")
	// ErrLocked says that another process owns the cache folder.
	ErrLocked = errors.New("the cache is in use by another process")
)

// Blobs is a store of immutable content, by digest.
//
// All methods are safe for concurrent use. Every method returns an error that
// wraps ErrNotFound or ErrFull where its comment says so, and an error naming
// the operation and the digest otherwise.
type Blobs interface {
	// Open returns the content with digest d. It returns ErrNotFound where
	// there is none. Content whose size is not the size it was published with
	// MUST be set aside and reported as ErrNotFound.
	Open(ctx context.Context, d Digest) (Kept, error)

	// Stat returns the size in bytes of the content with digest d without
	// opening it, or ErrNotFound.
	Stat(ctx context.Context, d Digest) (int64, error)

	// Create starts a draft of want.Digest. want.Size is the expected size in
	// bytes, or -1 where it is not known beforehand. Two drafts of one digest
	// MUST NOT disturb each other. It returns ErrFull where want.Size bytes
	// cannot be had, and an error where the digest's algorithm is not
	// available.
	Create(ctx context.Context, want Descriptor) (Draft, error)

	// Delete removes the content with digest d from the store. Readers that
	// have it open MUST be able to finish. Deleting what is not there is no
	// error.
	Delete(ctx context.Context, d Digest) error

	// Verify reads the content with digest d, telling pace each number of
	// bytes that it is about to read; pace may wait, and end it with an error.
	// It returns the size in bytes, or ErrNotFound. Content that does not have
	// the digest MUST be set aside, so that it is served no more, and reported
	// as ErrMismatch, with ErrSetAside.
	Verify(ctx context.Context, d Digest, pace func(n int) error) (int64, error)

	// Weight is how many bytes content of size bytes takes in the store, with
	// what is kept beside it.
	Weight(size int64) int64

	// Walk calls fn for every published digest with its size in bytes, in no
	// particular order, until fn returns false or ctx ends. Content published
	// or deleted meanwhile may be seen or missed.
	Walk(ctx context.Context, fn func(d Digest, size int64) bool) error
}

// Blob is open content. A Blob is used by one goroutine at a time, but for
// ReadAt, which is safe for concurrent use. Implementations backed by a file
// also implement syscall.Conn, so that the kernel can send them by itself.
type Blob interface {
	io.ReadSeekCloser
	io.ReaderAt
	// Size is the size of the whole content in bytes.
	Size() int64
}

// Kept is content that was published, open. What is kept may rot: whoever reads
// it has it checked first, piece by piece, as it is read.
type Kept interface {
	Blob
	// Check returns of how many of the n bytes at off it is known that they
	// are what was published: of one at least, where there are any. It looks at
	// the content for that, unless a look from a while ago still counts, and
	// reads no more than it needs.
	//
	// Content that is damaged there, or can't be read back, MUST be reported as
	// ErrMismatch, and MUST be set aside so that it is opened no more; one of
	// the calls that say so MUST say ErrSetAside. Other parts of the content
	// may pass all the same. Where it takes long to tell, bytes may pass before,
	// as those of a draft may be read; then some at the end MUST NOT pass until
	// all are known to be right, and if they are not, whoever got any MUST be
	// told ErrUnproven. Content that was deleted or set aside since it was opened MUST be
	// checked all the same. The offset of Read stays where it is. Check is
	// safe for concurrent use.
	Check(ctx context.Context, off, n int64) (sound int64, err error)
	// Doubt makes every look from before count no more: a read of what was
	// checked has failed.
	Doubt()
}

// Draft is content not yet proven to match its digest. Write, Commit and
// Close are called by one goroutine; ReadAt and Reader are safe beside them.
type Draft interface {
	// Write appends. It returns ErrFull where there is no room; what was
	// written before stays readable. A write past the announced size MUST fail
	// with ErrMismatch.
	io.Writer
	// ReadAt reads bytes written so far.
	io.ReaderAt
	// Reader opens a reader of its own over the draft, with its own offset,
	// at the start. It reads what is written so far (io.EOF at that end, more
	// after the next Write), stays valid after Commit and Close, and its Size
	// is the number of bytes written at the time of the call.
	Reader() (Blob, error)
	// Written is the number of bytes written so far.
	Written() int64
	// Verify MUST fail with ErrMismatch unless what is written has the
	// announced digest and size. It does not wait for the disk.
	Verify() error
	// Commit MUST verify size and digest (ErrMismatch), then publish
	// atomically and durably. Content that another draft has published
	// meanwhile is not an error. After Commit, only Close, ReadAt and Reader
	// may be called.
	Commit() error
	// Close releases the draft. Without a successful Commit it MUST leave
	// nothing behind. Closing twice is no error.
	Close() error
}

// A Bucket keeps one kind of record apart from the others.
type Bucket string

// Records is a store of small mutable answers: a tag's digest, a subject's
// referrers, who holds what, when it was last pulled. Losing the last moments
// of them costs a new check upstream, nothing else.
//
// All methods are safe for concurrent use. Values are copied on the way in
// and MUST NOT be changed by the caller on the way out.
type Records interface {
	// Get returns the value under key, or ErrNotFound. It MUST see every Put
	// and Delete that returned before it was called.
	Get(b Bucket, key string) ([]byte, error)
	// Put sets the value under key. It MUST NOT wait for the disk: writes are
	// grouped and made durable within a moment. A failure to write is
	// logged by the implementation, never returned to a pull.
	Put(b Bucket, key string, value []byte)
	// Delete removes key, in the manner of Put. Deleting what is not there is
	// no error.
	Delete(b Bucket, key string)
	// Scan calls fn for every key that begins with prefix, in the order of
	// keys, until fn returns false. It MUST see every Put and Delete that
	// returned before it was called. fn MUST NOT call the Records.
	Scan(b Bucket, prefix string, fn func(key string, value []byte) bool) error
	// Flush returns when everything put before the call is durable.
	Flush(ctx context.Context) error
	// Close flushes and releases the store.
	Close() error
}
