// Package flight downloads content once for any number of readers.
//
// A [Group] holds the downloads that are under way, by digest, and starts new
// ones. A [Flight] is one of them, as its readers see it: they follow it from
// any offset, each at its own pace. Behind it, a download fills a spool: a
// draft on disk, or a window in memory where the disk has no room.
//
// The package knows two things about the world, both of them interfaces that it
// declares: a [Source], which opens the content from an offset, and a [Sink],
// which keeps it. It knows nothing of repositories, of configured upstreams or
// of records. What its caller has to remember it is told as an [Observer].
//
// Invariants, each with the test that guards it:
//
//   - A digest has one download at a time, however many join it
//     (TestManyReadersOfOneDigestAreOneDownload).
//   - A download belongs to its group: a reader that leaves does not change its
//     course (TestAReaderThatLeavesDoesNotStopTheDownload).
//   - Nobody gets the last bytes before the digest is proven
//     (TestTheLastBytesAreHeldBackUntilTheDigestIsProven, TestDownloads).
//   - Only proven content is published (TestDownloads).
//   - A full disk costs the copy, not the readers
//     (TestAFullDiskCostsTheCopyAndNotTheReaders).
//   - A slow reader holds nobody up for long
//     (TestAStuckReaderDoesNotHoldUpTheOthersOfADownloadWithoutADisk).
//   - Wait returns when nothing is left running
//     (TestADownloadEndsWithItsGroup).
//
// Locks: the lock of a group is held while it asks Sink.Has, and for nothing
// else that leaves the package. The locks of a flight and of its spool are taken
// one at a time, under the group's or alone, and never while a source, a sink,
// an observer or a reader's writer is called. So all of these may use the group,
// but for Sink.Has (TestAllButHasMayUseTheGroup).
package flight

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/upstream"
)

// ErrLeftBehind says that bytes that a reader needs are no longer to be had from
// a download, because there was no disk for them and the reader was too slow.
var ErrReaderTooSlow = fmt.Errorf("%w: the download went on without this reader", upstream.ErrUnavailable)

// pieceSize is the most that goes to a reader's writer at once, in bytes: small
// enough that a slow client shows that it still reads.
const pieceSize = 256 << 10

// Flight is the one download of a digest that any number of readers follow. Its
// methods are safe for concurrent use.
type Flight struct {
	digest cache.Digest
	source Source
	spool  *spool
	done   chan struct{} // closed when nothing more will happen

	// What follows is changed by the download alone, with mu held. So it reads
	// its own work without the lock.
	mu      sync.Mutex
	changed chan struct{} // closed at the next change; nil while nobody waits
	state   state
	err     error // why it failed
	size    size
	written int64 // bytes taken from the source
}

// state is how far a flight has come.
type state int

const (
	waiting   state = iota // the source has not answered
	receiving              // bytes arrive
	complete               // proven whole
	failed                 // beyond retry
)

func newFlight(want cache.Descriptor, source Source, s *spool) *Flight {
	return &Flight{digest: want.Digest, source: source, spool: s, size: sizeOf(want), done: make(chan struct{})}
}

// Digest is the digest of the content.
func (f *Flight) Digest() cache.Digest { return f.digest }

// Source is what the download was started with.
func (f *Flight) Source() Source { return f.source }

// Done is closed when the download is over: the content is published, or will
// never be.
func (f *Flight) Done() <-chan struct{} { return f.done }

// Err is why the download failed; nil while it has not.
func (f *Flight) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// Progress returns how many bytes have come, and whether they are all of them,
// and proven.
func (f *Flight) Progress() (written int64, proven bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.written, f.state == complete
}

// Size waits until the source has answered and returns the size in bytes, or -1
// where it is not known before the end. It returns the error of a download that
// failed.
func (f *Flight) Size(ctx context.Context) (int64, error) {
	var n int64
	var err error
	waitErr := f.waitUntil(ctx, func() bool {
		n, err = f.size.total, nil
		if f.state == failed {
			err = f.err
		}
		return f.state != waiting
	})
	if waitErr != nil {
		return 0, waitErr
	}
	return n, err
}

// KnownSize is the size in bytes where the source is sending the content, or
// has. It does not wait.
func (f *Flight) KnownSize() (n int64, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.size.total, f.size.total >= 0 && (f.state == receiving || f.state == complete)
}

// Release ends what Join or Alone began: the caller reads no more. It is called
// once.
func (f *Flight) Release() { f.spool.release() }

// Follow writes n bytes from off to w as they arrive, all the rest where n is
// negative, in pieces of at most 256 KiB. The caller has not released the flight
// yet. It returns ErrLeftBehind where the download has no disk and went on
// without this reader.
func (f *Flight) Follow(ctx context.Context, w io.Writer, off, n int64) (written int64, err error) {
	r := f.spool.reader(off)
	defer r.close()
	for n < 0 || written < n {
		at := off + written
		end, err := f.waitPast(ctx, at)
		if err != nil {
			return written, err
		}
		if end == at {
			if n >= 0 {
				return written, io.ErrUnexpectedEOF
			}
			return written, nil
		}
		want := min(pieceSize, end-at)
		if n >= 0 {
			want = min(want, n-written)
		}
		wrote, err := r.next(w, want)
		written += wrote
		if err != nil {
			return written, fmt.Errorf("blob %s: %w", f.digest, err)
		}
	}
	return written, nil
}

// reach waits until bytes past off may be read, and returns how far reading
// may go. At the end of the content it returns off itself.
func (f *Flight) waitPast(ctx context.Context, off int64) (int64, error) {
	var end int64
	var err error
	waitErr := f.waitUntil(ctx, func() bool {
		switch f.state {
		case complete:
			end = f.written
			return true
		case failed:
			err = f.err
			return true
		}
		end = f.size.readable(f.written)
		return end > off
	})
	if waitErr != nil {
		return 0, waitErr
	}
	return max(end, off), err
}

// await returns once ready does, which is called with f.mu held.
func (f *Flight) waitUntil(ctx context.Context, ready func() bool) error {
	for {
		f.mu.Lock()
		if ready() {
			f.mu.Unlock()
			return nil
		}
		if f.changed == nil {
			f.changed = make(chan struct{})
		}
		changed := f.changed
		f.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// change makes a change that readers may wait for.
func (f *Flight) update(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn()
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

func (f *Flight) hasFailed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state == failed
}
