// Package flight downloads content once for any number of readers.
//
// A [Group] holds the downloads that are under way, by digest, and starts new
// ones. A [Flight] is one of them as its readers see it: each [Reader] reads the
// parts that it needs, at its own pace. Behind it, a download fills a spool: a
// draft on disk, or a window in memory if there is no room on disk.
//
// A download is made of pieces. A schedule knows which parts are there, which
// are on their way and which are wanted, and decides what is requested next:
// the fill, which is everything from the start on, or what is far ahead of it.
// If only ranges are read, only they are fetched, until they are most of the
// content. Large content is filled by several requests, of a part each. A download that is not needed any more, that fails or is stopped
// leaves its pieces in the sink, and the next one takes them up.
//
// The states of a flight: it waits for the first answer, or takes up what is
// there; it receives; it is complete, failed or parked. Only the first two can
// be joined.
//
// The package depends on two interfaces that it declares: a [Source], which
// opens the content at an offset, and a [Sink], which stores it. It knows
// nothing of configured upstreams or records. It notifies its caller of what
// needs recording through an [Observer].
//
// Invariants, with the tests that guard them:
//
//   - There is one download per digest at a time, however many readers join it
//     (TestManyReadersOfOneDigestShareOneDownload).
//   - Each byte is received once, whoever asks for it, but for a 64th of the
//     content (TestEachByteIsRequestedOnceWhoeverAsks,
//     TestARangeIsFetchedOnceAndAlone).
//   - A download belongs to its group: it continues when a reader leaves
//     (TestAReaderThatLeavesDoesNotStopTheDownload).
//   - No reader that began at the start gets the last bytes before the digest
//     is verified (TestTheLastBytesAreHeldBackUntilTheDigestIsVerified,
//     TestDownloads).
//   - Only verified content is published (TestDownloads).
//   - One that nobody waits for ends while it waits for a place at its source
//     (TestWhatNobodyWaitsForWaitsForNoPlace).
//   - Parts that are fetched side by side are asked for once, and what fails of
//     them costs no more than their being side by side
//     (TestEachByteIsRequestedOnceSideBySide, TestLargeContentIsFetchedSideBySide).
//   - What was received is not lost, unless it is wrong
//     (TestAFailedDownloadIsTakenUp, TestWhatWasReadIsKeptForLater).
//   - Pieces of content that has changed are dropped when the next request is
//     answered, other requests end, and readers that have got some of them are
//     broken off (TestPiecesOfChangedContentAreDropped,
//     TestChangedContentIsNotMixedWithWhatIsOnItsWay). What has been hashed
//     stays: the digest of the whole says whether it belongs to the rest.
//   - If the disk is full, the content is not stored, but its readers get it
//     (TestAFullDiskPreventsStoringButNotReading).
//   - A slow reader does not hold up the others for long
//     (TestAStuckReaderDoesNotHoldUpTheOthersWhenTheDiskIsFull).
//   - Wait returns when nothing is running any more
//     (TestADownloadEndsWithItsGroup).
//
// Locks: a group's lock is held while it calls Sink.Has, and during no other
// call that leaves the package. Under it the locks of a flight and of its spool
// are taken, and under a flight's that of its spool. None of them is held while
// a source, a sink, an observer or a reader's writer is called. So all of these
// may use the group, except for Sink.Has (TestEverythingButHasMayUseTheGroup).
// Of a draft, the flight's lock is held for what does not wait: its length.
package flight

import (
	"context"
	"errors"
	"fmt"
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
	wake   chan struct{} // has a value if the download has to decide what is requested next
	done   chan struct{} // closed when nothing more will happen

	// Only the download changes the following fields, and it holds mu to do so,
	// except for what readers ask for.
	mu      sync.Mutex
	changed chan struct{} // closed at the next change; nil while nobody waits
	state   state
	err     error // why it failed
	size    size
	plan    schedule
	readers []*Reader // in the order in which they are served
}

// state is the state of a flight.
type state int

const (
	waiting   state = iota // the source has not answered yet
	receiving              // the size is known, or never will be
	complete               // all bytes are received and verified
	failed                 // for good
	parked                 // nobody reads; what has been received is kept
)

func newFlight(want cache.Descriptor, source Source, s *spool) *Flight {
	return &Flight{
		digest: want.Digest, source: source, spool: s, size: sizeOf(want), plan: schedule{total: -1},
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
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

// Progress returns how many bytes from the start on have been received, and
// whether they are complete and verified.
func (f *Flight) Progress() (received int64, verified bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.plan.prefix(), f.state == complete
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

// Remains says whether a download that has failed has pieces that may still be
// read, and returns the size of the whole content in bytes.
func (f *Flight) Remains() (n int64, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.size.total, f.state == failed && f.size.total >= 0 && len(f.plan.have) > 0 && !errors.Is(f.err, errLost)
}

// Fill has the whole content fetched, whatever is read of it.
func (f *Flight) Fill() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.plan.insist()
	f.decide()
}

// Bypasses says whether a reader of what begins at off has to get it from the
// source by itself: there is no disk space for what the download does not fetch
// soon. If nobody knows the size, nobody can.
func (f *Flight) Bypasses(off int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state == receiving && f.size.total >= 0 && f.spool.isInMemory() && (!f.plan.fill || off > f.plan.prefix()+farAhead)
}

// Hold has somebody else release the flight as well. The caller has not released
// it yet.
func (f *Flight) Hold() { f.spool.hold() }

// Release ends what Join, StartPrivate or Hold began: the caller reads no more.
// It must be called once for each.
func (f *Flight) Release() {
	f.spool.release()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.decide()
}

// decide has the download look at what is to be requested. f.mu is held.
func (f *Flight) decide() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// waitPast waits until r may read bytes after off, and returns the offset up to
// which it may. At the end of the content it returns off itself. What a reader
// that began at the start may read is held back.
func (f *Flight) waitPast(ctx context.Context, r *Reader, off int64, held bool) (int64, error) {
	var end int64
	var err error
	said := false
	silence := silence{off: off}
	defer silence.end()
	waitErr := f.waitAtMost(ctx, &silence, func() bool {
		end, err = f.available(off, held), nil
		switch {
		case r.changed:
			err = errChanged
			return true
		case f.state == complete:
			return true
		case !held && f.size.total >= 0 && off >= f.size.total && !errors.Is(f.err, errLost):
			return true // that is the end, whatever becomes of the rest
		case f.state == failed && (end <= off || errors.Is(f.err, errLost)):
			err = f.err
			return true
		case end <= off && r.err != nil:
			err = r.err
			return true
		case end <= off && held && !f.plan.insisted && f.plan.have.End(off) > off:
			f.plan.insist() // what is held back is proven by nothing less
			f.decide()
		case end <= off && f.state == receiving && f.plan.inOrder && !f.plan.fill:
			err = errNoRoom
			return true
		case end <= off && !said && !f.plan.isAwaited(off):
			said = true
			f.decide()
		}
		return end > off
	})
	if waitErr != nil {
		return 0, waitErr
	}
	return max(end, off), err
}

// available is the end of what may be read at off. f.mu is held.
func (f *Flight) available(off int64, held bool) int64 {
	end := f.plan.have.End(off)
	if held && f.state != complete {
		// What is not hashed may be dropped yet, and other bytes be verified.
		end = min(end, f.size.readable(min(f.plan.prefix(), f.spool.hashed())))
	}
	return end
}

// waitUntil returns when ready returns true. ready is called with f.mu held.
func (f *Flight) waitUntil(ctx context.Context, ready func() bool) error {
	return f.waitAtMost(ctx, nil, ready)
}

// waitAtMost returns errSilence if that takes too long.
func (f *Flight) waitAtMost(ctx context.Context, silence *silence, ready func() bool) error {
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
		late := silence.begin(f)
		f.mu.Unlock()
		select {
		case <-changed:
		case <-late:
			if silence.isOver(f) {
				return errSilence
			}
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

// isOver says whether a flight can't be joined any more.
func (f *Flight) isOver() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state == failed || f.state == parked
}
