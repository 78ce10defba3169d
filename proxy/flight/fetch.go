package flight

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/upstream"
)

// fetch makes one request. It returns nil if the request has got as far as it
// should.
func (d *download) fetch(ctx context.Context, r *request) error {
	content, n, err := d.ask(ctx, r)
	if err != nil {
		if r.fill && r.from == 0 && !r.open && upstream.IsRangeRefused(err) {
			d.start.Observer.HasRanges(false)
		}
		return err
	}
	r.place = placeOf(content)
	defer r.place.release()
	begins, err := d.answered(ctx, r, content)
	if err != nil || !begins {
		return err
	}
	size := int64(bufferSize)
	if !r.open { // it may be the fill by now
		size = min(size, n)
	}
	body := body{content.Body, make([]byte, size), d.start.Observer}
	// A source without ranges starts at the beginning. The digest verifies at
	// the end that what was there and what comes now belong together.
	if err := body.skip(r.at - content.From); err != nil {
		return err
	}
	for {
		room, twice := d.room(r)
		if twice > 0 {
			if err := body.skip(twice); err != nil {
				return err
			}
			d.passed(r, twice)
			continue
		}
		if room == 0 {
			return nil
		}
		b, err := body.next(room)
		if len(b) > 0 {
			if err := d.store(ctx, r, b); err != nil {
				return err
			}
			if r.gaveAway {
				r.gaveAway, body.buf = false, make([]byte, size)
			}
		}
		switch {
		case d.isReceived(r, err):
			return nil
		case r.place.yielded, r.beside > 0 && r.place.isAwaited():
			return errYielded
		case err != nil:
			return bodyError(err)
		}
	}
}

// ask asks the source for what a request is for: n bytes, or all the rest if n
// is negative. Some registries only have ranges with both ends (F34), so a range
// has no end only if that is not known. Where all the rest is refused, the source
// starts from the beginning.
func (d *download) ask(ctx context.Context, r *request) (content upstream.Content, n int64, err error) {
	n = -1
	if !r.open || r.from > 0 && r.to != math.MaxInt64 {
		n = r.to - r.from
	}
	content, err = d.source.Blob(ctx, r.from, n)
	if n > 0 && r.open && upstream.IsRangeRefused(err) {
		content, err = d.source.Blob(ctx, 0, -1)
	}
	return content, n, err
}

// body is a body that is being received.
type body struct {
	io.Reader
	buf      []byte
	observer Observer
}

// next reads at most n bytes.
func (b body) next(n int64) ([]byte, error) {
	got, err := b.Read(b.buf[:min(n, int64(len(b.buf)))])
	if got > 0 {
		b.observer.Received(int64(got))
	}
	return b.buf[:got], err
}

// skip reads n bytes for nothing.
func (b body) skip(n int64) error {
	for n > 0 {
		got, err := b.next(n)
		n -= int64(len(got))
		if err != nil && n > 0 {
			return bodyError(err)
		}
	}
	return nil
}

// answered handles an answer of the source before its body is read. It returns
// false if the body is of no use.
func (d *download) answered(ctx context.Context, r *request, c upstream.Content) (begins bool, err error) {
	d.known.Lock()
	defer d.known.Unlock()
	d.mu.Lock()
	if r.stale { // another answer, with another validator, came meanwhile
		d.mu.Unlock()
		return false, errChanged
	}
	known, first := d.size, d.state == waiting
	asked, partial := !r.open || r.from > 0, r.from > 0 || c.Size < 0 || r.to < c.Size
	d.mu.Unlock()
	hasRange := !c.Whole && c.From == r.from
	if first {
		if known, err = known.withFirstAnswer(c); err != nil {
			return false, err
		}
	}
	if c.From > r.from {
		return false, fmt.Errorf("%w: asked for offset %d, got %d", upstream.ErrInvalidResponse, r.from, c.From)
	}
	if known, err = known.withAnswer(c); err != nil {
		return false, err
	}
	if first {
		d.open(ctx, known.total)
	}
	d.bind(r, c.ETag)
	d.update(func() {
		d.size, d.state = known, receiving
		if first {
			d.progress.answered = time.Now()
		}
		d.plan.sized(known)
		r.began = time.Now()
		d.plan.ranged = d.plan.ranged || asked && hasRange
		begins = d.plan.answered(r, hasRange)
		d.plan.doubtful = d.plan.doubtful && !(asked && hasRange)
		if d.plan.lanes.most > 1 {
			d.decide() // more may be fetched beside it
		}
	})
	if !d.known.told {
		d.known.told = true
		d.start.Observer.Answered(known.total)
	}
	if asked && (hasRange || partial) { // all of it in answer to a range that is all of it says nothing
		d.start.Observer.HasRanges(hasRange)
	}
	return begins, nil
}

// bind drops the pieces of content that has changed, going by the validator of
// the answer to r, and ends what would mix them with others: the other requests,
// and readers that have got some of them. What has been hashed stays, and so do
// those who read from the start on: the digest verifies it.
func (d *download) bind(r *request, etag string) {
	if etag == "" || etag == d.known.etag {
		return
	}
	changed := d.known.etag != ""
	d.known.etag = etag
	if changed {
		d.update(func() { d.plan.lanes.off() }) // each of its hosts may have its own
	}
	if !changed || !d.spool.isUsable() {
		return
	}
	d.start.Log.Info("the upstream sends the blob with another ETag: pieces of it are dropped")
	d.version.Lock()
	d.update(func() {
		d.plan.endOthers(r)
		for _, reader := range d.readers {
			reader.changed = reader.unproven
		}
	})
	d.spool.dropPieces()
	d.version.Unlock()
	d.takeStock()
}

// endOthers ends all requests but one.
func (s *schedule) endOthers(r *request) {
	for _, other := range s.requests {
		if other != r {
			other.stale = true
			other.end()
		}
	}
	s.requests = []*request{r}
}

// sized notes the size.
func (s *schedule) sized(known size) {
	if known.total < 0 || known.conflicting {
		s.fill = true
	}
	if s.inOrder = s.inOrder || known.total < 0; s.total >= 0 || known.total < 0 {
		return
	}
	s.total = known.total
	for _, r := range s.requests {
		r.to = min(r.to, s.total)
	}
	s.consider()
}

// answered notes the answer to a request. It returns false if that is of no use:
// it is the content from its start, which is being received already.
func (s *schedule) answered(r *request, isRange bool) bool {
	if isRange {
		return true
	}
	// The source has no ranges.
	s.inOrder, s.fill = true, true
	for _, other := range s.requests {
		if other != r && other.fill {
			return false
		}
	}
	at := s.prefix()
	r.fill, r.open, r.beside = true, true, 0
	r.from, r.at, r.to = at, at, s.end()
	return true
}

// open opens the spool for content of that size.
func (d *download) open(ctx context.Context, size int64) {
	if d.spool.isInMemory() {
		return
	}
	want := cache.Descriptor{Digest: d.digest, Size: size}
	draft, err := d.group.sink.Create(ctx, want)
	if err == nil && d.isWanted() {
		d.known.reserved = true
		if err = d.group.sink.Reserve(draft, cache.Descriptor{Digest: d.digest, Size: d.likely(size)}); err != nil {
			draft.Close()
		}
	}
	if err != nil {
		d.notCached(err)
		draft = nil
	}
	d.spool.open(draft)
	if draft == nil {
		d.update(func() { d.plan.inOrder = true })
	}
}

// likely is the size, or what a manifest says of it.
func (d *download) likely(size int64) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return max(size, d.size.announced)
}

// isWanted says whether all of the content is wanted.
func (d *download) isWanted() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.plan.fill
}

// room is how much a request may receive now. If it is the last one it may
// receive too much, so that this is noticed.
func (d *download) room(r *request) (n, twice int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, twice = d.plan.room(r)
	if n > 0 && r.open && r.at+n == d.plan.total {
		n++
	}
	if d.plan.total < 0 && n > 0 {
		n = d.size.clip(n, r.at)
	}
	return n, twice
}

// passed notes what a request has received although it was there.
func (d *download) passed(r *request, n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r.at += n
	d.plan.twice += n
}

// store makes b available to readers.
func (d *download) store(ctx context.Context, r *request, b []byte) error {
	d.mu.Lock()
	err := d.size.check(r.at + int64(len(b)))
	d.mu.Unlock()
	if err != nil {
		return err
	}
	err = d.write(ctx, r, b)
	if err != nil {
		return err
	}
	n := int64(len(b))
	d.update(func() {
		if r.stale || !r.fill && d.spool.isInMemory() {
			return // it came too late to be stored
		}
		d.plan.have.Add(cache.Span{From: r.at, To: r.at + n})
		r.at += n
		d.progress.stored += n
		d.progress.patient = false
		d.startHashing()
	})
	return nil
}

// write writes b to the spool. If there is no disk space any more, the fill
// continues in memory.
func (d *download) write(ctx context.Context, r *request, b []byte) error {
	err := d.writeSpool(ctx, r, b)
	if !errors.Is(err, cache.ErrFull) || errors.Is(err, errNoRoom) {
		return err
	}
	r.gaveAway = errors.Is(err, cache.ErrDown)
	d.known.Lock()
	err = d.continueInMemory(err)
	d.known.Unlock()
	if err != nil {
		return err
	}
	return d.writeSpool(ctx, r, b)
}

// writeSpool writes b to the spool. What is in memory is written by the fill
// alone: others would leave it with what the fill does not continue.
func (d *download) writeSpool(ctx context.Context, r *request, b []byte) error {
	if !r.fill && d.spool.isInMemory() {
		return errNoRoom
	}
	if err := d.grow(r.at + int64(len(b))); err != nil {
		return err
	}
	d.version.RLock()
	defer d.version.RUnlock()
	if r.stale {
		return errChanged
	}
	return d.spool.write(ctx, r, b)
}

// isReceived says whether a request has all that it asked for, after a read that
// returned err. If the source does not give the size, the content ends where a
// request without an end does, or once it has the size that a manifest gives and
// the digest matches; anything after that is ignored.
func (d *download) isReceived(r *request, err error) bool {
	d.mu.Lock()
	known, total, at := d.size, d.plan.total, r.at
	d.mu.Unlock()
	if total >= 0 || !r.open {
		return at >= r.to
	}
	if !errors.Is(err, io.EOF) && (at != known.announced || d.spool.verify() != nil) {
		return false
	}
	d.update(func() {
		d.plan.total = at
		r.to = min(r.to, at)
	})
	return true
}

// bodyError translates an error of a body: an EOF before the end of the content
// is a broken connection.
func bodyError(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: the body ended early", upstream.ErrUnavailable)
	}
	return err
}
