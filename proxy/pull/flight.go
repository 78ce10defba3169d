package pull

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/metadata"
	"github.com/entrepot/entrepot/upstream"
)

const (
	// heldBack is how many bytes at the end of a blob readers get only once
	// its digest is proven, so that nobody can mistake corrupt content for whole.
	heldBack = 4 << 10
	// maxResumes is how often a download is taken up again while it gets less
	// than worthwhile bytes further: drop by drop is beyond retry too.
	maxResumes = 4
	worthwhile = 128 << 10
	// copyBuffer is the size of one read from an upstream, in bytes.
	copyBuffer = 128 << 10
)

// A flight is the one download of a blob that any number of readers follow.
// It goes from waiting (the upstream has not answered) to flowing (bytes
// arrive) to landed (proven whole) or lost (beyond retry). It belongs to the
// mirror: readers come and go without changing its course.
type flight struct {
	digest Digest
	repo   Repository // through which it is fetched

	mu      sync.Mutex
	changed chan struct{} // closed at the next change; nil while nobody waits
	state   flightState
	err     error // why it is lost
	size    int64 // of the whole blob as its upstream tells it, -1 while unknown
	told    int64 // what a manifest says of the size where the upstream says nothing, -1 otherwise
	most    int64 // bytes that are taken; 0 before the first answer
	doubted bool  // manifest and upstream differ on its size: nothing goes out before it is proven, unless it is large
	written int64 // bytes taken from the upstream
	store   *spool
	over    chan struct{} // closed when nothing more will happen
	seed    *seed         // what it begins with; nil for nothing
}

type flightState int

const (
	waiting flightState = iota
	flowing
	landed
	lost
)

// errLost says that bytes that a reader needs are no longer to be had from its
// flight, because the disk was full and the reader too slow.
var errLost = fmt.Errorf("%w: the download went on without this reader", upstream.ErrUnavailable)

// hangar holds the flights that are under way, by digest.
type hangar struct {
	mu       sync.Mutex
	byDigest map[Digest]*flight
}

func (h *hangar) get(d Digest) *flight {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.byDigest[d]
}

func (h *hangar) remove(f *flight) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.byDigest[f.digest] == f {
		delete(h.byDigest, f.digest)
	}
}

// fly joins the flight for want or starts one through repo; started says
// which. The caller holds the flight's store and releases it. A nil flight
// means that the blob has landed on disk meanwhile, unless it is wanted anew.
// A flight that is started begins with the seed, if there is one.
func (p *Puller) fly(u Upstream, repo Repository, want Descriptor, anew bool, from *seed) (f *flight, started bool, err error) {
	p.flights.mu.Lock()
	defer p.flights.mu.Unlock()
	if f := p.flights.byDigest[want.Digest]; f != nil && !f.isLost() {
		f.store.hold()
		return f, false, nil
	}
	// A flight leaves the hangar after its blob is published: without this
	// look, the last to miss it would download again.
	if _, err := p.opts.Blobs.Stat(p.ctx, want.Digest); err == nil && !anew {
		return nil, false, nil
	}
	if len(p.flights.byDigest) >= p.opts.MaxFlights {
		return nil, false, fmt.Errorf("blob %s of %s: %w", want.Digest, repo, ErrBusy)
	}
	f = p.newFlight(repo, want, true)
	f.seed = from.hold()
	f.store.hold()
	p.flights.byDigest[want.Digest] = f
	p.launch(u, f)
	return f, true, nil
}

// newFlight prepares a flight. One that is not kept goes without the disk.
func (p *Puller) newFlight(repo Repository, want Descriptor, keep bool) *flight {
	f := &flight{digest: want.Digest, repo: repo, size: want.Size, told: -1, over: make(chan struct{})}
	var draft cache.Draft
	if keep {
		draft = p.draft(f, want.Size)
	}
	f.store = newSpool(want.Digest, draft)
	return f
}

// draft is where a flight's bytes are kept, nil where there is no room.
func (p *Puller) draft(f *flight, size int64) cache.Draft {
	draft, err := p.opts.Blobs.Create(p.ctx, Descriptor{Digest: f.digest, Size: size})
	if err != nil {
		p.bypass(f, err)
		return nil
	}
	return draft
}

func (p *Puller) launch(u Upstream, f *flight) {
	p.work.Add(1)
	tell(p.opts.Events.Flights, 1)
	go func() {
		defer p.work.Done()
		defer tell(p.opts.Events.Flights, -1)
		defer close(f.over)
		defer f.store.release() // after the removal: whoever finds a flight can hold it
		defer p.flights.remove(f)
		expected := max(f.size, 0)
		p.evictor.expect(expected)
		defer p.evictor.expect(-expected)
		p.download(u, f)
	}()
}

// download runs a flight to its end.
func (p *Puller) download(u Upstream, f *flight) {
	if err := p.fill(u, f); err != nil {
		err = fmt.Errorf("blob %s of %s: %w", f.digest, f.repo, causeOf(p.ctx, err))
		p.log.Warn("download failed", "upstream", f.repo.Upstream, "repository", f.repo.Name, "digest", f.digest.String(), "error", err)
		if errors.Is(err, upstream.ErrNotFound) {
			p.absent.remember(blobKey(f.repo, f.digest), err)
		}
		f.lose(err)
		return
	}
	if err := f.store.verify(); err != nil {
		err = fmt.Errorf("blob %s of %s: %w: %w", f.digest, f.repo, upstream.ErrBadAnswer, err)
		p.log.Error("content refused", "upstream", f.repo.Upstream, "repository", f.repo.Name, "digest", f.digest.String(), "error", err)
		f.lose(err)
		return
	}
	f.land()
	p.meta.PutMember(f.repo, f.digest, metadata.Member{Size: f.size})
	if err := p.publish(f); err != nil {
		p.bypass(f, err)
	}
}

// publish keeps a proven blob, once there is room for it. No client waits.
func (p *Puller) publish(f *flight) error {
	if f.store.left {
		return nil // it has lost its disk, and was told of already
	}
	if err := p.evictor.admit(p.ctx, f.digest, f.size); err != nil {
		return err
	}
	err := f.store.commit()
	p.evictor.settle(f.digest, err == nil)
	return err
}

// bypass notes that a blob is passed on without being kept.
func (p *Puller) bypass(f *flight, err error) {
	tell(p.opts.Events.Bypassed, f.repo.Upstream)
	p.evictor.rouse()
	p.log.Warn("blob is not kept", "upstream", f.repo.Upstream, "repository", f.repo.Name, "digest", f.digest.String(), "error", err)
}

// fill takes the whole blob from the upstream, taking the download up again
// where it broke off.
func (p *Puller) fill(u Upstream, f *flight) error {
	buf := make([]byte, copyBuffer)
	if err := p.sow(f, buf); err != nil {
		return err
	}
	sown := f.written
	for resumes, mark := 0, f.written; ; {
		err := p.attempt(p.ctx, u, f, buf)
		switch {
		case err == nil:
			return nil
		case p.ctx.Err() != nil:
			return err
		case !worthResuming(err):
			return err
		case f.written >= mark+worthwhile:
			resumes, mark = 0, f.written
		}
		if f.written == sown || resumes == maxResumes {
			return err // before the first byte the registry's own tries were all there is to do
		}
		resumes++
		p.log.Info("download taken up again", "upstream", f.repo.Upstream, "repository", f.repo.Name, "digest", f.digest.String(), "offset", f.written, "error", err)
		if err := pause(p.ctx, time.Duration(resumes)*200*time.Millisecond); err != nil {
			return err
		}
	}
}

// worthResuming tells a broken line from an answer.
func worthResuming(err error) bool {
	return errors.Is(err, upstream.ErrUnavailable) && !errors.Is(err, upstream.ErrBadAnswer) && !errors.Is(err, errLost)
}

// pause waits for about d, with jitter.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// attempt is one request: from the offset that the flight has reached to the
// end of the blob, or to where the upstream breaks off.
func (p *Puller) attempt(ctx context.Context, u Upstream, f *flight, buf []byte) error {
	content, err := u.Registry.Blob(ctx, f.repo.Name, f.digest, f.written, -1)
	if err != nil {
		return err
	}
	defer content.Body.Close()
	if f.most == 0 {
		if err := p.expect(f, content); err != nil {
			return err
		}
	}
	if err := f.announce(content); err != nil {
		return err
	}
	if f.written == 0 {
		p.meta.PutMember(f.repo, f.digest, metadata.Member{Size: f.size})
	}
	// An upstream that knows no Range begins anew: what readers have already
	// is passed over, and the digest proves in the end that both are one.
	for skip := f.written - content.From; skip > 0; {
		n, err := content.Body.Read(buf[:min(skip, int64(len(buf)))])
		tell2(p.opts.Events.Received, u.Name, int64(n))
		skip -= int64(n)
		if err != nil {
			return endOf(err)
		}
	}
	for {
		n, err := content.Body.Read(f.upTo(buf))
		if n > 0 {
			tell2(p.opts.Events.Received, u.Name, int64(n))
			if err := p.append(f, buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case f.written == f.size, errors.Is(err, io.EOF) && f.size < 0, f.isTold():
			return nil
		case err != nil:
			return endOf(err)
		}
	}
}

// endOf is the meaning of a body's error: an end before the end is a cut.
func endOf(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: the body ended early", upstream.ErrUnavailable)
	}
	return err
}

func tell2[A, B any](fn func(A, B), a A, b B) {
	if fn != nil {
		fn(a, b)
	}
}

// append adds b to the flight.
func (p *Puller) append(f *flight, b []byte) error {
	if f.size >= 0 && f.written+int64(len(b)) > f.size {
		return fmt.Errorf("%w: more than the %d bytes of the blob", upstream.ErrBadAnswer, f.size)
	}
	if f.size < 0 && f.written+int64(len(b)) > f.most {
		return fmt.Errorf("%w: no size was told, and more than %d bytes came", upstream.ErrBadAnswer, f.most)
	}
	if err := f.store.write(p.ctx, b); err != nil {
		if !errors.Is(err, cache.ErrFull) {
			return err
		}
		p.bypass(f, err)
		if err := f.store.leaveDisk(p.ctx, f.digest, b); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.written += int64(len(b))
	f.signal()
	return nil
}

func (f *flight) land() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state, f.size = landed, f.written
	f.signal()
}

func (f *flight) lose(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state, f.err = lost, err
	f.signal()
}

// isLost says that a flight is over, though it may still be in the hangar.
func (f *flight) isLost() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state == lost
}

// signal wakes everyone who waits for a change. f.mu is held.
func (f *flight) signal() {
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}
