package flight

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/entrepot/entrepot/cache"
)

// A Reader reads parts of a flight's content for one request of a client. It
// must be used by one goroutine at a time.
type Reader struct {
	f    *Flight
	at   *position
	held bool
	wait wait  // what it needs; guarded by f.mu
	err  error // why what it needs can't be fetched; guarded by f.mu
	// unproven means that it has read what no digest has verified, and changed
	// that the rest would be of other content; guarded by f.mu.
	unproven, changed bool
}

// ReadOptions describe what a Reader will read.
type ReadOptions struct {
	// Parts are the parts of the content, in the order in which they are read.
	// nil means all of it, or all from some offset on: then the whole content is
	// fetched.
	Parts []cache.Span
	// ToEnd means that Parts is one part that has all the rest of the content:
	// the whole content is fetched, and if it is not being fetched already, this
	// part is fetched at once.
	ToEnd bool
	// Patient readers wait for the download wherever it is. What others need
	// is fetched by itself, if the download is far away from it.
	Patient bool
	// Held means that the last bytes are held back until the digest is
	// verified, as they are for whoever reads from the start.
	Held bool
}

// NewReader begins to read. The caller must not have released the flight, and
// closes the Reader before.
func (f *Flight) NewReader(opts ReadOptions) *Reader {
	r := &Reader{f: f, at: &position{s: f.spool}, held: opts.Held, wait: wait{spans: opts.Parts, patient: opts.Patient}}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.readers = append(f.readers, r)
	switch {
	case opts.ToEnd:
		r.wait.toEnd = true
		r.wait.patient = opts.Patient || f.plan.fill // many of them are one download (W21)
		f.plan.insist()
	case opts.Parts == nil:
		f.plan.insist()
	default:
		f.plan.ask(opts.Parts)
	}
	f.decide()
	return r
}

// Follow writes n bytes starting at off to w as they arrive, or all the rest if
// n is negative, in pieces of at most 256 KiB. If the download has no disk space
// and has continued without this reader, it goes on with a further download,
// which those share that are too slow. It returns ErrReaderTooSlow if there is
// none for what it needs, and cache.ErrFull if there is no disk space for that.
func (r *Reader) Follow(ctx context.Context, w io.Writer, off, n int64) (written int64, err error) {
	r.need(off, n)
	held := off == 0 || r.held
	r.at.begin(off)
	defer func() { r.at.end() }()
	if n < 0 {
		r.at.s.joinBehind(r.at)
	}
	for n < 0 || written < n {
		at := off + written
		if r.follow(at) {
			continue
		}
		end, err := r.f.waitPast(ctx, r, at, held)
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
		if want = r.sound(at, want); want == 0 {
			continue // it is fetched again
		}
		if !held {
			r.noteUnproven()
		}
		wrote, err := r.at.copy(w, want)
		written += wrote
		if errors.Is(err, ErrReaderTooSlow) && r.follow(off+written) {
			continue
		}
		if err != nil {
			return written, fmt.Errorf("blob %s: %w", r.f.digest, err)
		}
	}
	return written, nil
}

func (r *Reader) noteUnproven() {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	r.unproven = true
}

// Await waits until something can be read at off, of n bytes or of all the rest
// if n is negative, and says whether the download has received something in the
// meantime. What else becomes of the wait, Follow returns.
func (r *Reader) Await(ctx context.Context, off, n int64) (moved bool, err error) {
	r.need(off, n)
	r.at.begin(off) // a download without disk space waits for its readers
	defer func() { r.at.end() }()
	before := r.f.received()
	_, err = r.f.waitPast(ctx, r, off, off == 0 || r.held)
	return r.f.received() >= before+idleBytes, err
}

// need notes what is read, if that was not known when the reader began.
func (r *Reader) need(off, n int64) {
	f := r.f
	f.mu.Lock()
	defer f.mu.Unlock()
	span := cache.Span{From: off, To: f.plan.end()}
	if n >= 0 {
		span.To = off + n
	}
	if n == 0 || slices.ContainsFunc(r.wait.spans, func(s cache.Span) bool { return s.From <= span.From && span.To <= s.To }) {
		return
	}
	if n >= 0 {
		f.plan.ask([]cache.Span{span})
		r.wait.spans = append(slices.Clip(r.wait.spans), span)
	} else {
		f.plan.insist()
	}
	f.decide()
}

// sound is how many of the n bytes at off may be read. Those of an earlier
// download may have become damaged, and are then fetched again.
func (r *Reader) sound(off, n int64) int64 {
	sound, lost := r.at.s.check(off, n)
	if lost {
		r.f.takeStock()
	}
	return sound
}

// takeStock notes that pieces of the draft were lost.
func (f *Flight) takeStock() {
	pieces := f.spool.draft.Pieces()
	f.update(func() {
		f.plan.have = pieces
		f.decide()
	})
}

// Hold is the option Held, for a reader that has not read anything yet.
func (r *Reader) Hold() { r.held = true }

// Close ends the reading.
func (r *Reader) Close() error {
	r.leave()
	return r.at.close()
}

// leave takes the reader off the flight's list.
func (r *Reader) leave() {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	r.f.readers = slices.DeleteFunc(r.f.readers, func(other *Reader) bool { return other == r })
}

// Follow reads with a Reader of its own.
func (f *Flight) Follow(ctx context.Context, w io.Writer, off, n int64) (written int64, err error) {
	opts := ReadOptions{Patient: true}
	if n >= 0 {
		opts.Parts = []cache.Span{{From: off, To: off + n}}
	}
	r := f.NewReader(opts)
	defer r.Close()
	return r.Follow(ctx, w, off, n)
}

// waits are what the readers need, in the order in which they are served. f.mu
// is held.
func (f *Flight) waits() (waits []wait, readers []*Reader) {
	for _, r := range f.readers {
		if r.err == nil && len(r.wait.spans) > 0 {
			waits, readers = append(waits, r.wait), append(readers, r)
		}
	}
	return waits, readers
}

func (f *Flight) serveLast(r *Reader) {
	for i, other := range f.readers {
		if other == r {
			f.readers = append(append(f.readers[:i:i], f.readers[i+1:]...), r)
			return
		}
	}
}
