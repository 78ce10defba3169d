package flight

import (
	"context"
	"fmt"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/upstream"
)

// A Source is where content comes from.
type Source interface {
	// String names the content and where it comes from, for errors.
	fmt.Stringer
	// Blob opens the content at the offset from: n bytes of it, or the rest if
	// n is negative. It returns what upstream.Registry's Blob does. It may be
	// called again to continue at another offset.
	Blob(ctx context.Context, from, n int64) (upstream.Content, error)
	// Origin is where the content comes from.
	Origin() Origin
}

// A Sink is where content is stored. Its methods MUST be safe for concurrent
// use.
type Sink interface {
	// Has says whether content is stored. It MUST NOT call the Group.
	Has(ctx context.Context, d cache.Digest) bool
	// Create begins a draft, as cache.Blobs does. If it returns an error, the
	// content is downloaded without being stored.
	Create(ctx context.Context, want cache.Descriptor) (cache.Draft, error)
	// Reserve reserves room for the rest of a draft of want. If it returns an
	// error, the download continues without storing anything.
	Reserve(draft cache.Draft, want cache.Descriptor) error
	// Keep keeps the draft of d for Resume, with a note.
	Keep(ctx context.Context, d cache.Digest, draft cache.Draft, note []byte) error
	// Resume returns the draft of d that was kept, or cache.ErrNotFound.
	Resume(ctx context.Context, d cache.Digest) (cache.Draft, cache.KeptDraft, error)
	// AddIncoming adds n to the number of bytes that are being downloaded; n
	// may be negative.
	AddIncoming(n int64)
	// Grow is AddIncoming for n bytes more of content whose size nobody gives,
	// and which may have no end. If it returns an error, none were added and the
	// download continues without storing anything.
	Grow(n int64) error
	// Publish commits the draft of d, which is verified and has size bytes,
	// once there is room for it. No reader waits for that.
	Publish(ctx context.Context, d cache.Digest, size int64, draft cache.Draft) error
	// NotCached reports that content could not be stored for lack of room.
	NotCached()
	// Quarantined reports that stored content of size bytes, which a download
	// began with, was found damaged and is no longer stored.
	Quarantined(size int64)
}

// An Observer is notified of the progress of one download, so that its caller
// can record it. The download waits for each call to return.
type Observer interface {
	// Answered is called when the source has answered, before the first byte.
	// The size is -1 if the source does not say.
	Answered(size int64)
	// HasRanges is called when an answer shows whether the source has ranges.
	// One that has none answers with the whole content.
	HasRanges(has bool)
	// Received is called with the number of bytes received from the source.
	Received(bytes int64)
	// Completed is called when all bytes are received and verified.
	Completed(size int64)
	// NotCached is called when the content could not be stored.
	NotCached()
	// Failed is called when the download has failed for good, before readers
	// see the error.
	Failed(err error)
}
