// Package flight downloads content once for any number of readers.
//
// A [Group] holds the downloads that are under way, by digest, and starts new
// ones. A [Flight] is one of them as its readers see it: they follow it from
// any offset, each at its own pace. Behind it, a download fills a spool: a
// draft on disk, or a window in memory if there is no room on disk.
//
// The package depends on two interfaces that it declares: a [Source], which
// opens the content at an offset, and a [Sink], which stores it. It knows
// nothing of repositories, configured upstreams or records. It notifies its
// caller of what needs recording through an [Observer].
//
// Invariants, with the tests that guard them:
//
//   - There is one download per digest at a time, however many readers join it
//     (TestManyReadersOfOneDigestShareOneDownload).
//   - A download belongs to its group: it continues when a reader leaves
//     (TestAReaderThatLeavesDoesNotStopTheDownload).
//   - No reader gets the last bytes before the digest is verified
//     (TestTheLastBytesAreHeldBackUntilTheDigestIsVerified, TestDownloads).
//   - Only verified content is published (TestDownloads).
//   - If the disk is full, the content is not stored, but its readers get it
//     (TestAFullDiskPreventsStoringButNotReading).
//   - A slow reader does not hold up the others for long
//     (TestAStuckReaderDoesNotHoldUpTheOthersWhenTheDiskIsFull).
//   - Wait returns when nothing is running any more
//     (TestADownloadEndsWithItsGroup).
//
// Locks: a group's lock is held while it calls Sink.Has, and during no other
// call that leaves the package. The locks of a flight and of its spool are
// taken one at a time, alone or under the group's lock. They are never held
// while a source, a sink, an observer or a reader's writer is called. So all of
// these may use the group, except for Sink.Has (TestEverythingButHasMayUseTheGroup).
package flight

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/upstream"
)

// ErrReaderTooSlow means that a download no longer has the bytes that a reader
// needs: there was no disk space for them, and the reader was too slow.
var ErrReaderTooSlow = fmt.Errorf("%w: the download has continued without this reader, which was too slow", upstream.ErrUnavailable)

// pieceSize is the largest number of bytes passed to a reader's writer at once.
// It is small enough to notice that a slow client still makes progress.
const pieceSize = 256 << 10

// A Flight is the download of one digest, which any number of readers can
// follow. Its methods are safe for concurrent use.
type Flight struct {
	digest cache.Digest
	source Source
	spool  *spool
	done   chan struct{} // closed when nothing more will happen

	// Only the download changes the following fields, and it holds mu to do so.
	// It reads them without the lock.
	mu      sync.Mutex
	changed chan struct{} // closed at the next change; nil while nobody waits
	state   state
	err     error // why it failed
	size    size
	written int64 // bytes received from the source
}

// state is the state of a flight.
type state int

const (
	waiting   state = iota // the source has not answered yet
	receiving              // bytes are being received
	complete               // all bytes are received and verified
	failed                 // for good
)

func newFlight(want cache.Descriptor, source Source, s *spool) *Flight {
	return &Flight{digest: want.Digest, source: source, spool: s, size: sizeOf(want), done: make(chan struct{})}
}

// Digest is the digest of the content.
func (f *Flight) Digest() cache.Digest { return f.digest }

// Source is the source that the download was started with.
func (f *Flight) Source() Source { return f.source }

// Done is closed when the download is over: the content has been published, or
// never will be.
func (f *Flight) Done() <-chan struct{} { return f.done }

// Err is the error of a download that failed, or nil.
func (f *Flight) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// Progress returns how many bytes have been received, and whether they are
// complete and verified.
func (f *Flight) Progress() (written int64, verified bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.written, f.state == complete
}

// Size waits until the source has answered and returns the size in bytes, or -1
// if it is not known before the end. If the download has failed, it returns its
// error.
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

// KnownSize returns the size in bytes if the source has given it. It does not
// wait.
func (f *Flight) KnownSize() (n int64, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.size.total, f.size.total >= 0 && (f.state == receiving || f.state == complete)
}

// Release ends what Join or StartPrivate began: the caller reads no more. It
// must be called once.
func (f *Flight) Release() { f.spool.release() }

// Follow writes n bytes starting at off to w as they arrive, or all the rest if
// n is negative, in pieces of at most 256 KiB. The caller must not have
// released the flight. Follow returns ErrReaderTooSlow if the download has no
// disk space and has continued without this reader.
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

// waitPast waits until bytes after off may be read, and returns the offset up
// to which reading is allowed. At the end of the content it returns off itself.
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

// waitUntil returns when ready returns true. ready is called with f.mu held.
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

// update changes the fields that readers may be waiting for.
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
