package flight_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/limits/panics"
	"github.com/entrepot/entrepot/proxy/flight"
	"github.com/entrepot/entrepot/upstream"
)

const (
	mib       = 1 << 20
	largeSize = 8 * mib
)

// look begins a download of which only ranges are read.
func (s *scripted) look() flight.StartOptions {
	start := s.start()
	start.Look = true
	return start
}

// readParts reads ranges as one request of a client does.
func (g group) readParts(t *testing.T, s *scripted, parts ...cache.Span) error {
	t.Helper()
	f, _ := g.join(t, s.want(), s.look())
	defer f.Release()
	return readParts(f, s.content, parts...)
}

func readParts(f *flight.Flight, content []byte, parts ...cache.Span) error {
	r := f.NewReader(flight.ReadOptions{Parts: parts})
	defer r.Close()
	if _, err := f.Size(context.Background()); err != nil {
		return err
	}
	for _, part := range parts {
		var got bytes.Buffer
		n, err := r.Follow(context.Background(), &got, part.From, part.Len())
		if err != nil {
			return err
		}
		if n != part.Len() || !bytes.Equal(got.Bytes(), content[part.From:part.To]) {
			return fmt.Errorf("%d bytes, or others, of %d", n, part)
		}
	}
	return nil
}

func TestARangeIsFetchedOnceAndAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{content: bytesOf(1, largeSize), gate: make(chan struct{})}
		sink := newTestSink(memory.New())
		g := newGroup(t, sink)
		part := cache.Span{From: 5 * mib, To: 5*mib + 1000}
		var readers sync.WaitGroup
		for range 5 {
			readers.Go(func() {
				if err := g.readParts(t, s, part); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if sink.expected != 0 {
			t.Errorf("room for %d bytes is expected to be needed", sink.expected)
		}
		close(s.gate)
		readers.Wait()
		s.wantAsked(t, "5242880+1000")
		// What is around it is one request: it is small.
		if err := g.readParts(t, s, cache.Span{From: part.From - 100, To: part.To + 100}); err != nil {
			t.Error(err)
		}
		s.wantAsked(t, "5242780+1200")
		// Then the whole: the fill goes around what is there, or over it.
		if got, err := g.read(s.want(), s.start()); err != nil || !bytes.Equal(got, s.content) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		synctest.Wait()
		s.wantAsked(t, "0+-1")
		if s.received > largeSize+largeSize/64 || !sink.has(s.want().Digest) {
			t.Errorf("%d bytes were received, cached: %v", s.received, sink.has(s.want().Digest))
		}
	})
}

func TestWhatWasReadIsKeptForLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{content: bytesOf(1, largeSize)}
		sink := newTestSink(memory.New())
		g := newGroup(t, sink)
		first, other := cache.Span{From: 0, To: 1000}, cache.Span{From: 6 * mib, To: 7 * mib}
		if err := g.readParts(t, s, first, other); err != nil {
			t.Fatal(err)
		}
		s.wantAsked(t, "0+1000", "6291456+1048576")
		time.Sleep(20 * time.Second)
		if err := g.readParts(t, s, first); err != nil || g.Len() != 1 {
			t.Errorf("%d downloads, %v", g.Len(), err)
		}
		time.Sleep(31 * time.Second)
		kept, ok := sink.Kept(s.want().Digest)
		if g.Len() != 0 || !ok || kept.Bytes != mib+1000 || kept.Size != largeSize {
			t.Fatalf("%d downloads, and %d bytes of %d are kept", g.Len(), kept.Bytes, kept.Size)
		}
		if of, err := flight.OriginOf(kept.Note); err != nil || of != s.Origin() {
			t.Errorf("it is from %v: %v", of, err)
		}
		// With the upstream stopped it is served, and the rest is not.
		s.fail = upstream.ErrRefused
		if err := g.readParts(t, s, other, first); err != nil {
			t.Error(err)
		}
		s.wantAsked(t)
		if err := g.readParts(t, s, cache.Span{From: 2 * mib, To: 3 * mib}); !errors.Is(err, upstream.ErrRefused) {
			t.Errorf("what is not there: %v", err)
		}
		if err := g.readParts(t, s, first); err != nil {
			t.Errorf("after that: %v", err)
		}
		s.transcript()
		// Once it is back, the rest comes, and all of it is right.
		s.fail = nil
		if got, err := g.read(s.want(), s.start()); err != nil || !bytes.Equal(got, s.content) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		synctest.Wait()
		s.wantAsked(t, "1000+6290456", "7340032+1048576")
		if _, ok := sink.Kept(s.want().Digest); ok || s.received != largeSize {
			t.Errorf("%d bytes were received, and something is kept: %v", s.received, ok)
		}
	})
}

func TestAFailedDownloadIsTakenUp(t *testing.T) {
	cut := fmt.Errorf("%w: connection reset", upstream.ErrUnavailable)
	wrong := bytes.Clone(bytesOf(1, largeSize))
	wrong[1000] ^= 1
	for name, c := range map[string]struct {
		content []byte
		fail    error // instead of the rest
		stops   bool  // the mirror does
		origin  string
		asked   string
	}{
		"the upstream goes away":           {fail: cut, asked: "3145728+5242880"},
		"the mirror stops":                 {stops: true, asked: "3145728+5242880"},
		"a wrong byte":                     {content: wrong, asked: "0+-1"},
		"the next is of another upstream":  {fail: cut, origin: "other", asked: "0+-1"},
		"the upstream sends something odd": {fail: upstream.ErrInvalidResponse, asked: "3145728+5242880"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &scripted{content: bytesOf(1, largeSize)}
				sink := newTestSink(memory.New())
				g := newGroup(t, sink)
				held := make(chan struct{})
				s.bodies = func(from int64, body []byte) io.ReadCloser {
					switch {
					case c.stops:
						return io.NopCloser(io.MultiReader(bytes.NewReader(body[:3*mib]), gated{held, failing{context.Canceled}}))
					case c.fail != nil && from == 0:
						return cutAfter(body, 3*mib, c.fail)
					case c.fail != nil:
						return cutAfter(body, 0, c.fail)
					}
					return io.NopCloser(bytes.NewReader(c.content))
				}
				f, _ := g.join(t, s.want(), s.start())
				synctest.Wait()
				if c.stops {
					g.stop()
					close(held)
				}
				<-f.Done()
				f.Release()
				if f.Err() == nil {
					t.Fatal("it did not fail")
				}
				next := &scripted{content: s.content, upstream: c.origin}
				if got, err := newGroup(t, sink).read(next.want(), next.start()); err != nil || !bytes.Equal(got, s.content) {
					t.Errorf("the next one got %d bytes and %v", len(got), err)
				}
				next.wantAsked(t, c.asked)
			})
		})
	}
}

func TestRangesOfMostOfTheContentFetchAllOfIt(t *testing.T) {
	for name, c := range map[string]struct {
		size  int
		parts []cache.Span
		all   bool
	}{
		"less than three fifths":              {10_000_000, []cache.Span{{From: 0, To: 5_990_000}}, false},
		"more than that":                      {10_000_000, []cache.Span{{From: 0, To: 3_000_000}, {From: 6_000_000, To: 9_010_000}}, true},
		"the same bytes again and again":      {10_000_000, []cache.Span{{From: 0, To: 3_000_000}, {From: 0, To: 3_000_000}, {From: 0, To: 3_000_000}}, false},
		"a few bytes of something small":      {3 * mib, []cache.Span{{From: 2 * mib, To: 2*mib + 10}}, true},
		"a few bytes of something not small":  {5 * mib, []cache.Span{{From: 2 * mib, To: 2*mib + 10}}, false},
		"nearly all, from the start":          {10_000_000, []cache.Span{{From: 0, To: 9_999_000}}, true},
		"its end, which is never held back":   {10_000_000, []cache.Span{{From: 9_999_000, To: 10_000_000}}, false},
		"the start of something of all sizes": {4 * mib, []cache.Span{{From: 0, To: 1}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &scripted{content: bytesOf(1, c.size)}
				sink := newTestSink(memory.New())
				g := newGroup(t, sink)
				for _, part := range c.parts {
					if err := g.readParts(t, s, part); err != nil {
						t.Fatal(err)
					}
				}
				synctest.Wait()
				if sink.has(s.want().Digest) != c.all || s.received > int64(c.size)+int64(c.size)/64 {
					t.Errorf("cached: %v, %d bytes were received", sink.has(s.want().Digest), s.received)
				}
			})
		})
	}
}

func TestPiecesOfChangedContentAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{content: bytesOf(1, largeSize), etag: `"one"`}
		g := newGroup(t, newTestSink(memory.New()))
		part, other := cache.Span{From: 5 * mib, To: 6 * mib}, cache.Span{From: 7 * mib, To: 7*mib + 10}
		if err := g.readParts(t, s, part); err != nil {
			t.Fatal(err)
		}
		s.etag = `"another"`
		if err := g.readParts(t, s, other); err != nil {
			t.Fatal(err)
		}
		if err := g.readParts(t, s, part, other); err != nil {
			t.Fatal(err)
		}
		s.wantAsked(t, "5242880+1048576", "7340032+10", "5242880+1048576")
	})
}

// While one part of it is on its way, another comes from content that has changed:
// nobody gets some of both.
func TestChangedContentIsNotMixedWithWhatIsOnItsWay(t *testing.T) {
	const begun = 64 << 10
	part, other := cache.Span{From: 5 * mib, To: 6 * mib}, cache.Span{From: 30 * mib, To: 30*mib + 10}
	for name, wait := range map[string]bool{"a reader has got some": false, "a request brings more": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				content, former := bytesOf(1, 40*mib), bytesOf(2, 40*mib)
				rest := make(chan struct{})
				s := &scripted{content: content, etag: `"former"`}
				s.bodies = func(from int64, body []byte) io.ReadCloser {
					if s.etag != `"former"` {
						return io.NopCloser(bytes.NewReader(body))
					}
					return heldAt(begun, rest)(from, former[from:from+int64(len(body))])
				}
				g := newGroup(t, newTestSink(memory.New()))
				f, _ := g.join(t, s.want(), s.look())
				defer f.Release()
				var first bytes.Buffer
				var readers sync.WaitGroup
				readers.Go(func() {
					r := f.NewReader(flight.ReadOptions{Parts: []cache.Span{part}})
					defer r.Close()
					_, err := r.Follow(context.Background(), &first, part.From, part.Len())
					if err == nil {
						t.Error("the reader got all of it")
					}
				})
				synctest.Wait()
				s.etag = `"now"`
				if err := g.readParts(t, s, other); err != nil {
					t.Error(err)
				}
				if wait {
					close(rest)
					synctest.Wait()
				}
				if err := g.readParts(t, s, part); err != nil {
					t.Error(err)
				}
				if !wait {
					close(rest)
				}
				readers.Wait()
				if !bytes.Equal(first.Bytes(), former[part.From:part.From+begun]) {
					t.Errorf("the first reader got %d bytes, or some of both", first.Len())
				}
				s.wantAsked(t, "5242880+1048576", "31457280+10", "5242880+1048576")
			})
		})
	}
}

func TestASourceWithoutRangesIsAskedOnce(t *testing.T) {
	for name, script := range map[string]*scripted{
		"it sends everything":              {noRange: true},
		"and does not tell the size":       {noRange: true, noLength: true},
		"it has ranges, but tells no size": {noLength: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := script
				s.content, s.gate = bytesOf(1, largeSize), make(chan struct{})
				sink := newTestSink(memory.New())
				g := newGroup(t, sink)
				var readers sync.WaitGroup
				readers.Go(func() { // the first bytes: nobody sees at their offset that there are no ranges
					if err := g.readParts(t, s, cache.Span{From: 0, To: 2}); err != nil {
						t.Error(err)
					}
				})
				synctest.Wait()
				for i := range int64(4) {
					readers.Go(func() {
						if err := g.readParts(t, s, cache.Span{From: i * 2 * mib, To: i*2*mib + 100}); err != nil {
							t.Error(err)
						}
					})
				}
				synctest.Wait()
				close(s.gate)
				readers.Wait()
				synctest.Wait()
				if s.reads > 2*largeSize/(64<<10) {
					t.Errorf("%d reads of %d bytes", s.reads, largeSize)
				}
				if asked := s.transcript(); len(asked) > 1 && s.noRange || len(asked) > 2 || !sink.has(s.want().Digest) {
					t.Errorf("it was asked %q; cached: %v", asked, sink.has(s.want().Digest))
				}
			})
		})
	}
}

func TestARefusedRangeIsFollowedByTheWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{content: bytesOf(1, largeSize), fail: &upstream.RefusedError{Status: 416}}
		s.onCall = func() {
			if len(s.transcriptSoFar()) > 0 {
				s.fail = nil
			}
		}
		g := newGroup(t, newTestSink(memory.New()))
		if err := g.readParts(t, s, cache.Span{From: 5 * mib, To: 6 * mib}); err != nil {
			t.Fatal(err)
		}
		s.wantAsked(t, "5242880+1048576", "0+-1")
	})
}

func TestWithoutRoomRangesAreLeftToTheirReaders(t *testing.T) {
	for name, room := range map[string]int64{"from the start": 0, "in the middle": 100 << 10} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &scripted{content: bytesOf(1, largeSize)}
				g := newGroup(t, newTestSink(memory.NewBounded(room)))
				f, _ := g.join(t, s.want(), s.look())
				defer f.Release()
				r := f.NewReader(flight.ReadOptions{Parts: []cache.Span{{From: 5 * mib, To: 6 * mib}}})
				defer r.Close()
				if _, err := f.Size(t.Context()); err != nil {
					t.Fatal(err)
				}
				var got bytes.Buffer
				if _, err := r.Follow(t.Context(), &got, 5*mib, mib); !errors.Is(err, cache.ErrFull) || !bytes.Equal(got.Bytes(), s.content[5*mib:5*mib+got.Len()]) {
					t.Errorf("%d bytes, %v", got.Len(), err)
				}
				if !f.Bypasses(0) {
					t.Error("the next reader of a range would wait")
				}
				// The whole goes through memory.
				if got, err := g.read(s.want(), s.start()); err != nil || !bytes.Equal(got, s.content) {
					t.Errorf("the whole: %d bytes, %v", len(got), err)
				}
			})
		})
	}
}

func TestADownloadThatNobodyWaitsForAndThatGetsNowhereEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed := make(chan struct{})
		s := &scripted{content: bytesOf(1, largeSize)}
		s.bodies = func(_ int64, body []byte) io.ReadCloser {
			return io.NopCloser(io.MultiReader(bytes.NewReader(body[:3*mib]), gated{closed, failing{context.Canceled}}))
		}
		sink := newTestSink(memory.New())
		g := newGroup(t, sink)
		f, _ := g.join(t, s.want(), s.start())
		time.Sleep(10 * time.Minute)
		if g.Len() != 1 {
			t.Error("it ended while somebody waited")
		}
		f.Release()
		time.Sleep(2 * time.Minute)
		close(closed) // as the request's context does
		<-f.Done()
		if kept, ok := sink.Kept(s.want().Digest); g.Len() != 0 || !ok || kept.Bytes != 3*mib || !strings.Contains(f.Err().Error(), "nobody waits for it") {
			t.Errorf("%d downloads, and %d bytes are kept: %v", g.Len(), kept.Bytes, f.Err())
		}
		// Meanwhile it was saved once: no more came.
		if want := `{"upstream":"hub","repository":"app"}`; !slices.Equal(sink.saved, []string{want}) {
			t.Errorf("saved with %q", sink.saved)
		}
	})
}

func TestTheNextDownloadWaitsForWhatTheLastOneLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{content: bytesOf(1, largeSize), bodies: onceThen(func(body []byte) io.ReadCloser {
			return cutAfter(body, 3*mib, upstream.ErrInvalidResponse)
		})}
		sink := newTestSink(memory.New())
		sink.keeping = make(chan struct{})
		g := newGroup(t, sink)
		f, _ := g.join(t, s.want(), s.start())
		defer f.Release()
		synctest.Wait()
		if f.Err() == nil {
			t.Fatal("it did not fail")
		}
		next, started := g.join(t, s.want(), s.start())
		defer next.Release()
		if !started {
			t.Fatal("the one that failed was joined")
		}
		var got bytes.Buffer
		done := follow(next, &got)
		synctest.Wait()
		close(sink.keeping)
		if err := <-done; err != nil || !bytes.Equal(got.Bytes(), s.content) {
			t.Errorf("%d bytes, %v", got.Len(), err)
		}
		s.wantAsked(t, "0+-1", "3145728+5242880")
	})
}

// What follows on an answer that began at the start is held back too.
func TestTheEndIsHeldBackFromWhoMayHaveTheRest(t *testing.T) {
	const size = 64 << 10
	for held, out := range map[bool]int{true: size - heldBack - 1000, false: size - 1 - 1000} {
		synctest.Test(t, func(t *testing.T) {
			last := make(chan struct{})
			s := &scripted{content: bytesOf(11, size), bodies: heldAt(size-1, last)}
			f, _ := newGroup(t, newTestSink(memory.New())).join(t, s.want(), s.start())
			defer f.Release()
			r := f.NewReader(flight.ReadOptions{Held: held})
			defer r.Close()
			var got bytes.Buffer
			done := make(chan error, 1)
			go func() {
				_, err := r.Follow(context.Background(), &got, 1000, -1)
				done <- err
			}()
			synctest.Wait()
			if got.Len() != out {
				t.Errorf("held back %v: %d bytes are out before the last one is in, want %d", held, got.Len(), out)
			}
			close(last)
			if err := <-done; err != nil || !bytes.Equal(got.Bytes(), s.content[1000:]) {
				t.Errorf("in the end %d bytes and %v", got.Len(), err)
			}
		})
	}
}

func TestDownloadsThatNobodyReadsMakeRoomForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := newTestSink(memory.New())
		g := flight.NewGroup(t.Context(), sink, flight.Options{Max: 2})
		defer g.Wait()
		for i := range byte(6) {
			s := &scripted{content: bytesOf(i, largeSize)}
			f, _, err := g.Join(s.want(), s.look())
			if err != nil {
				t.Fatalf("download %d: %v", i, err)
			}
			if err := readParts(f, s.content, cache.Span{From: 5 * mib, To: 6 * mib}); err != nil {
				t.Error(err)
			}
			f.Release()
			synctest.Wait()
		}
		if n := len(sink.AllKept()); n != 4 || g.Len() != 2 {
			t.Errorf("%d are kept, %d are under way", n, g.Len())
		}
		// Those that somebody reads, or wants whole, stay.
		held := &scripted{content: bytesOf(7, largeSize), gate: make(chan struct{})}
		defer close(held.gate)
		for range 2 {
			f, _, err := g.Join(held.want(), held.start())
			if err != nil {
				t.Fatal(err)
			}
			defer f.Release()
			held.content = bytesOf(8, largeSize)
		}
		if _, _, err := g.Join((&scripted{content: bytesOf(9, 100)}).want(), held.start()); !errors.Is(err, flight.ErrBusy) {
			t.Errorf("one too many: %v", err)
		}
	})
}

// TestAPanicWhileABlobIsHashedCostsItsDownload (13.1): its readers get an error,
// and the next download is none of it.
func TestAPanicWhileABlobIsHashedCostsItsDownload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := 0
		panics.Handle(func(string, any, []byte) { told++ })
		defer panics.Handle(nil)
		s := &scripted{content: bytesOf(1, largeSize)}
		sink := newTestSink(memory.New())
		g := newGroup(t, sink)
		if err := g.readParts(t, s, cache.Span{From: 2 * mib, To: 4 * mib}); err != nil {
			t.Fatal(err)
		}
		sink.broken.Store(true)
		if got, err := g.read(s.want(), s.start()); !errors.Is(err, panics.ErrPanic) || len(got) == largeSize {
			t.Errorf("%d bytes of %d, %v", len(got), largeSize, err)
		}
		synctest.Wait()
		if told == 0 || g.Len() > 0 {
			t.Errorf("%d panics were told of, and %d downloads are under way", told, g.Len())
		}
		sink.broken.Store(false)
		if got, err := g.read(s.want(), s.start()); err != nil || !bytes.Equal(got, s.content) {
			t.Errorf("then %d bytes of %d, %v", len(got), largeSize, err)
		}
	})
}
