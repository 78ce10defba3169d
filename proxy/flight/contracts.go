package flight

import (
	"context"
	"fmt"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/upstream"
)

// Source is where content comes from.
type Source interface {
	// String names the content and where it comes from, for errors.
	fmt.Stringer
	// Blob opens the content from the offset from on, n bytes of it, or all the
	// rest where n is negative. It answers as upstream.Registry does. It may be
	// called again to go on at another offset.
	Blob(ctx context.Context, from, n int64) (upstream.Content, error)
}

// Sink is where content is kept. All methods are called by any number of
// downloads at once.
type Sink interface {
	// Has says whether content is kept. It MUST NOT call the Group.
	Has(ctx context.Context, d cache.Digest) bool
	// Create starts a draft, in the manner of cache.Blobs. An error, of any
	// kind, means that the content is downloaded without being kept.
	Create(ctx context.Context, want cache.Descriptor) (cache.Draft, error)
	// Expect notes that n more bytes are being downloaded, or, where n is
	// negative, that they no longer are.
	AddIncoming(n int64)
	// Publish commits the draft of d, which is proven and has size bytes, once
	// there is room for it. No reader waits for that.
	Publish(ctx context.Context, d cache.Digest, size int64, draft cache.Draft) error
	// NotKept notes that content could not be kept: room is wanted.
	NotCached()
	// Quarantined notes that content of size bytes, with which a download
	// began, was found damaged and is no longer kept.
	Quarantined(size int64)
}

// Observer is told what becomes of one download, for its caller to remember.
// Its methods are called by the download, which waits for them.
type Observer interface {
	// Answered is called when the source has answered and before the first
	// byte. The size is -1 where the source does not tell it.
	Answered(size int64)
	// Received is called with the bytes that came from the source.
	Received(bytes int64)
	// Completed is called when all has come and is proven.
	Completed(size int64)
	// NotKept is called when the content could not be kept.
	NotCached()
	// Failed is called when the download is beyond retry, before readers see it.
	Failed(err error)
}
