package flight_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/proxy/flight"
	"github.com/entrepot/entrepot/upstream"
)

// What a range has brought is not the beginning of what the fill continues in
// memory.
func TestWithoutRoomARangeIsNotRequestedAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{content: bytesOf(1, 50<<10)}
		s.onCall = func() {
			if len(s.transcriptSoFar()) > 10 {
				s.fail = upstream.ErrDenied // or the test would never end
			}
		}
		g := newGroup(t, newTestSink(memory.NewBounded(0)))
		if err := g.readParts(t, s, cache.Span{From: 0, To: 31}); err != nil && !errors.Is(err, cache.ErrFull) {
			t.Error(err)
		}
		s.wantAsked(t, "0+31", "0+-1")
	})
}

// A reader that waits for the fill, because its own request came to nothing,
// doesn't wait for one that has failed.
func TestARangeIsRequestedAgainAfterTheFillHasFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{content: bytesOf(1, 3*mib)}
		failures := 2
		s.bodies = func(_ int64, body []byte) io.ReadCloser {
			if failures--; failures >= 0 {
				return cutAfter(body, 100<<10, upstream.ErrInvalidResponse)
			}
			return io.NopCloser(bytes.NewReader(body))
		}
		f, _ := newGroup(t, newTestSink(memory.New())).join(t, s.want(), s.look())
		defer f.Release()
		r := f.NewReader(flight.ReadOptions{Parts: []cache.Span{{From: mib, To: 2 * mib}}})
		defer r.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		var got bytes.Buffer
		if _, err := r.Follow(ctx, &got, mib, mib); err != nil || !bytes.Equal(got.Bytes(), s.content[mib:2*mib]) {
			t.Errorf("%d bytes, %v", got.Len(), err)
		}
		s.wantAsked(t, "1048576+1048576", "0+1048576", "1150976+946176")
	})
}

func TestARangeOfWhatIsHeldBackHasAllOfItFetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{content: bytesOf(1, 3000)}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		sink := newTestSink(memory.New())
		g := group{flight.NewGroup(ctx, sink, flight.Options{Max: 10, Small: 1}), cancel}
		f, _ := g.join(t, s.want(), s.look())
		r := f.NewReader(flight.ReadOptions{Parts: []cache.Span{{From: 0, To: 99}}})
		var got bytes.Buffer
		if _, err := r.Follow(ctx, &got, 0, 99); err != nil || !bytes.Equal(got.Bytes(), s.content[:99]) {
			t.Errorf("%d bytes, %v", got.Len(), err)
		}
		r.Close()
		f.Release()
		g.Wait()
		if !sink.has(s.want().Digest) {
			t.Error("it is not proven")
		}
	})
}

// slowHash is a Sink whose drafts hash their pieces only once they may.
type slowHash struct {
	*testSink
	may chan struct{}
}

func (s slowHash) Create(ctx context.Context, want cache.Descriptor) (cache.Draft, error) {
	draft, err := s.testSink.Create(ctx, want)
	return slowDraft{draft, s.may}, err
}

type slowDraft struct {
	cache.Draft
	may chan struct{}
}

func (d slowDraft) Advance(n int) (int, error) {
	<-d.may
	return d.Draft.Advance(n)
}

// Pieces that are not hashed may be dropped, and replaced by others that match
// the digest. Whoever reads the whole doesn't get them before.
func TestPiecesThatAreNotHashedAreHeldBackFromAnAnswerFromTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{content: bytesOf(1, largeSize)}
		sink := slowHash{newTestSink(memory.New()), make(chan struct{})}
		g := newGroup(t, sink)
		if err := g.readParts(t, s, cache.Span{From: 2 * mib, To: 3 * mib}); err != nil {
			t.Fatal(err)
		}
		f, _ := g.join(t, s.want(), s.start())
		defer f.Release()
		var got bytes.Buffer
		done := follow(f, &got)
		synctest.Wait()
		if got.Len() != 2*mib {
			t.Errorf("%d bytes are out, and %d are hashed", got.Len(), 2*mib)
		}
		close(sink.may)
		if err := <-done; err != nil || !bytes.Equal(got.Bytes(), s.content) {
			t.Errorf("%d bytes, %v", got.Len(), err)
		}
	})
}

func TestNobodyPassesByADownloadOfUnknownSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{content: bytesOf(1, largeSize), noLength: true}
		s.bodies = func(_ int64, body []byte) io.ReadCloser { return cutAfter(body, 100, upstream.ErrInvalidResponse) }
		f, _ := newGroup(t, newTestSink(memory.NewBounded(0))).join(t, s.want(), s.look())
		defer f.Release()
		r := f.NewReader(flight.ReadOptions{Parts: []cache.Span{{From: 0, To: 1000}}})
		defer r.Close()
		synctest.Wait()
		if f.Err() != nil || f.Bypasses(0) {
			t.Errorf("all the rest of it would be no bytes: %v", f.Err())
		}
	})
}

func TestWhatRemainsOfAFailedDownloadCanBeRead(t *testing.T) {
	wrong := bytes.Clone(bytesOf(1, largeSize))
	wrong[5] ^= 1
	for name, c := range map[string]struct {
		body    func(body []byte) io.ReadCloser
		remains bool
	}{
		"a part of it":  {func(body []byte) io.ReadCloser { return cutAfter(body, mib, upstream.ErrInvalidResponse) }, true},
		"nothing":       {func(body []byte) io.ReadCloser { return cutAfter(body, 0, upstream.ErrInvalidResponse) }, false},
		"wrong content": {func([]byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(wrong)) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &scripted{content: bytesOf(1, largeSize), bodies: func(_ int64, body []byte) io.ReadCloser { return c.body(body) }}
				f, _ := newGroup(t, newTestSink(memory.New())).join(t, s.want(), s.start())
				defer f.Release()
				<-f.Done()
				if size, ok := f.Remains(); f.Err() == nil || ok != c.remains || size != largeSize {
					t.Errorf("of %d bytes some remain: %v; %v", size, ok, f.Err())
				}
				var got bytes.Buffer
				r := f.NewReader(flight.ReadOptions{Parts: []cache.Span{{From: 1000, To: 2000}}})
				defer r.Close()
				if _, err := r.Follow(t.Context(), &got, 1000, 1000); (err == nil) != c.remains {
					t.Errorf("%d bytes of it, %v", got.Len(), err)
				}
			})
		})
	}
}

// damagedSink is a Sink without room, whose drafts were damaged behind the first
// MiB when they are resumed.
type damagedSink struct{ *testSink }

func (s damagedSink) Resume(ctx context.Context, d cache.Digest) (cache.Draft, cache.KeptDraft, error) {
	draft, kept, err := s.testSink.Resume(ctx, d)
	if err != nil {
		return nil, kept, err
	}
	return damagedDraft{draft}, kept, nil
}

func (s damagedSink) Reserve(cache.Draft, cache.Descriptor) error { return cache.ErrFull }

type damagedDraft struct{ cache.Draft }

func (d damagedDraft) Check(off, n int64) int64 {
	return max(0, min(d.Draft.Check(off, n), mib-off))
}

func (d damagedDraft) ReadAt(p []byte, off int64) (int, error) {
	n, err := d.Draft.ReadAt(p, off)
	if at := mib - off; 0 <= at && at < int64(n) {
		p[at] ^= 1
	}
	return n, err
}

func TestADamagedDraftIsNotContinuedInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{content: bytesOf(1, largeSize)}
		sink := damagedSink{newTestSink(memory.New())}
		if err := newGroup(t, sink).readParts(t, s, cache.Span{From: 0, To: 3 * mib}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		s.transcript()
		if got, err := newGroup(t, sink).read(s.want(), s.start()); err != nil || !bytes.Equal(got, s.content) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		s.wantAsked(t, "1048576+7340032")
	})
}

func TestAPartOfWhatNobodyKnowsTheSizeOfIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{content: bytesOf(1, 100<<10), noLength: true}
		sink := slowHash{newTestSink(memory.New()), make(chan struct{})}
		g := newGroup(t, sink)
		// All of it is there, the middle first, and not hashed when the mirror stops.
		f, _ := g.join(t, s.want(), s.look())
		r := f.NewReader(flight.ReadOptions{Parts: []cache.Span{{From: 10 << 10, To: 50 << 10}}})
		synctest.Wait()
		g.stop()
		close(sink.may)
		<-f.Done()
		r.Close()
		f.Release()
		if kept, ok := sink.Kept(s.want().Digest); ok {
			t.Errorf("%d bytes of %d are kept, and are of no use", kept.Bytes, kept.Size)
		}
	})
}

func TestWhoReadsToTheEndDoesNotWaitForTheBeginning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const off = 6 * mib
		fails := make(chan struct{})
		s := &scripted{content: bytesOf(1, largeSize)}
		s.bodies = func(from int64, body []byte) io.ReadCloser {
			if from == 0 {
				return io.NopCloser(gated{fails, failing{upstream.ErrInvalidResponse}})
			}
			return io.NopCloser(bytes.NewReader(body))
		}
		f, _ := newGroup(t, newTestSink(memory.New())).join(t, s.want(), s.look())
		defer f.Release()
		r := f.NewReader(flight.ReadOptions{Parts: []cache.Span{{From: off, To: largeSize}}, ToEnd: true})
		defer r.Close()
		var got bytes.Buffer
		done := make(chan error, 1)
		go func() {
			_, err := r.Follow(context.Background(), &got, off, -1)
			done <- err
		}()
		synctest.Wait()
		if len(done) == 0 {
			t.Error("it waits")
		}
		close(fails)
		if err := <-done; err != nil || !bytes.Equal(got.Bytes(), s.content[off:]) {
			t.Errorf("%d bytes, %v", got.Len(), err)
		}
	})
}
