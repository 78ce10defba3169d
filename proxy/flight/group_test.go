package flight_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/proxy/flight"
	"github.com/entrepot/entrepot/upstream"
)

func afterHours() <-chan time.Time { return time.After(5 * time.Hour) }

func TestAFailedDownloadIsNotJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := newTestSink(memory.New())
		// One download has just failed, and has not been removed yet.
		leaves := make(chan struct{})
		var once atomic.Bool
		sink.onExpect = func(int64) {
			if once.Load() {
				<-leaves
			}
		}
		g := newGroup(t, sink)
		bad := &scripted{content: bytesOf(1, 100<<10), fail: upstream.ErrNotFound, gate: make(chan struct{})}
		failed, _ := g.join(t, bad.want(), bad.start())
		defer failed.Release()
		synctest.Wait()
		once.Store(true)
		close(bad.gate)
		synctest.Wait()
		if !errors.Is(failed.Err(), upstream.ErrNotFound) || g.Get(bad.want().Digest) != failed {
			t.Fatalf("it is gone, or not failed: %v", failed.Err())
		}
		once.Store(false)
		good := &scripted{content: bad.content, gate: make(chan struct{})}
		f, started := g.join(t, good.want(), good.start())
		defer f.Release()
		if !started || f == failed {
			t.Error("it was joined")
		}
		close(leaves)
		<-failed.Done()
		if g.Get(good.want().Digest) != f {
			t.Error("the one that failed took the next one away")
		}
		close(good.gate)
		var got bytes.Buffer
		if err := <-follow(f, &got); err != nil || !bytes.Equal(got.Bytes(), good.content) {
			t.Errorf("%d bytes, %v", got.Len(), err)
		}
	})
}

// A client may ask while the mirror stops: Wait waits for what began before it,
// and what begins after it stores nothing any more.
func TestADownloadThatStartsAfterTheEndFailsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 50 {
			ctx, stop := context.WithCancel(t.Context())
			sink := newTestSink(memory.New())
			var waited atomic.Bool
			sink.onExpect = func(int64) {
				if waited.Load() {
					t.Error("the sink is used after the end")
				}
			}
			g := flight.NewGroup(ctx, sink, flight.Options{Max: 100})
			for i := range 8 {
				go func() {
					s := &scripted{content: bytesOf(byte(i), 100), gate: make(chan struct{})}
					f, _, err := g.Join(s.want(), s.start())
					if err != nil {
						t.Errorf("Join: %v", err)
						return
					}
					defer f.Release()
					<-f.Done()
					if err := f.Err(); !errors.Is(err, upstream.ErrUnavailable) {
						t.Errorf("it ended with %v", err)
					}
				}()
			}
			stop()
			g.Wait()
			waited.Store(true)
			s := &scripted{content: bytesOf(99, 100)}
			f, _, err := g.Join(s.want(), s.start())
			if err != nil {
				t.Fatal(err)
			}
			<-f.Done()
			if err := f.Err(); !errors.Is(err, upstream.ErrUnavailable) {
				t.Errorf("after the end: %v", err)
			}
			f.Release()
			synctest.Wait()
		}
	})
}

func TestNoMoreDownloadsStartThanAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running atomic.Int64
		g := flight.NewGroup(t.Context(), newTestSink(memory.New()), flight.Options{Max: 1, Running: func(n int) { running.Add(int64(n)) }})
		defer g.Wait()
		one, other := &scripted{content: bytesOf(1, 100), gate: make(chan struct{})}, &scripted{content: bytesOf(2, 100)}
		f, started, err := g.Join(one.want(), one.start())
		if !started || err != nil {
			t.Fatal(started, err)
		}
		defer f.Release()
		synctest.Wait()
		if running.Load() != 1 {
			t.Errorf("%d are running", running.Load())
		}
		if _, _, err := g.Join(other.want(), other.start()); !errors.Is(err, flight.ErrBusy) || !errors.Is(err, upstream.ErrUnavailable) {
			t.Errorf("a second one: %v", err)
		}
		again, started, err := g.Join(one.want(), one.start())
		if started || err != nil {
			t.Errorf("the first one is not joined: %v", err)
		}
		again.Release()
		close(one.gate)
		<-f.Done()
		synctest.Wait()
		if running.Load() != 0 {
			t.Errorf("%d are running in the end", running.Load())
		}
		if _, started, err = g.Join(other.want(), other.start()); !started || err != nil {
			t.Errorf("the next one: %v, %v", started, err)
		}
	})
}

// An upstream that gets nowhere takes no place from others, whatever is asked of
// it, and its clients are served from what it has.
func TestOneUpstreamLeavesPlacesForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := flight.NewGroup(t.Context(), newTestSink(memory.New()), flight.Options{Max: 16})
		defer g.Wait()
		gate := make(chan struct{})
		defer close(gate)
		asked := 0
		start := func(upstream string) (started int) {
			for range 20 {
				asked++
				s := &scripted{content: bytesOf(1, 100+asked), gate: gate, upstream: upstream}
				f, _, err := g.Join(s.want(), s.start())
				if err != nil && !errors.Is(err, flight.ErrBusy) {
					t.Fatal(err)
				}
				if err == nil {
					defer f.Release()
					started++
				}
			}
			return started
		}
		for _, c := range []struct {
			upstream string
			want     int
		}{{"slow", 12}, {"other", 3}, {"slow", 0}, {"a third one", 1}, {"a fourth one", 0}} {
			if got := start(c.upstream); got != c.want {
				t.Errorf("%s: %d downloads started, want %d", c.upstream, got, c.want)
			}
		}
	})
}

func TestADownloadEndsWithItsGroup(t *testing.T) {
	for name, script := range map[string]func(s *scripted){
		"before the answer": func(s *scripted) { s.gate = make(chan struct{}) },
		"between two tries": func(s *scripted) {
			s.bodies = func(_ int64, body []byte) io.ReadCloser { return cutAfter(body, 1000, upstream.ErrUnavailable) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &scripted{content: bytesOf(1, 100<<10)}
				script(s)
				sink := newTestSink(memory.New())
				g := newGroup(t, sink)
				f, _ := g.join(t, s.want(), s.start())
				defer f.Release()
				var got bytes.Buffer
				done := follow(f, &got)
				synctest.Wait()
				g.stop()
				g.Wait()
				if err := <-done; !errors.Is(err, upstream.ErrUnavailable) || errors.Is(err, context.Canceled) {
					t.Errorf("the reader got %v", err)
				}
				if sink.expected != 0 || g.Len() != 0 {
					t.Errorf("%d bytes are expected, %d downloads are left", sink.expected, g.Len())
				}
			})
		})
	}
}

func TestEverythingButHasMayUseTheGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := newTestSink(memory.NewBounded(9 << 20))
		s := &scripted{content: bytesOf(1, 10<<20)}
		g := newGroup(t, sink)
		kept := &scripted{content: bytesOf(2, 100)}
		if _, err := g.read(kept.want(), kept.start()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		want, of := s.want(), kept.want()
		var calls atomic.Int64
		use := func() {
			calls.Add(1)
			if f := g.Get(want.Digest); f != nil {
				f.Progress()
				f.KnownSize()
			}
			if f, _, err := g.Join(of, kept.start()); f != nil || err != nil {
				t.Errorf("joined %v: %v", f, err)
			}
		}
		s.onCall, sink.onCall = use, use
		f, _ := g.join(t, want, s.start())
		defer f.Release()
		if _, err := f.Follow(t.Context(), writerFunc(func(b []byte) (int, error) { use(); return len(b), nil }), 0, -1); err != nil {
			t.Error(err)
		}
		<-f.Done()
		if n := calls.Load(); n < 20 {
			t.Errorf("only %d calls", n)
		}
	})
}

type writerFunc func(b []byte) (int, error)

func (w writerFunc) Write(b []byte) (int, error) { return w(b) }

// damaged is a stored file with damage at an offset.
type damaged struct {
	*bytes.Reader
	at     int64
	closed *atomic.Int32
}

func (d damaged) Close() error      { d.closed.Add(1); return nil }
func (d damaged) InvalidateChecks() {}

func (d damaged) Check(_ context.Context, off, n int64) (int64, error) {
	if off >= d.at {
		return 0, errors.Join(cache.ErrMismatch, cache.ErrQuarantined)
	}
	return min(n, d.at-off), nil
}

func TestADownloadBeginsWithTheSoundPartOfItsSeed(t *testing.T) {
	const size = 1 << 20
	for name, c := range map[string]struct {
		at    int64
		asked []string
	}{
		"damaged at its start":  {0, []string{"0+-1"}},
		"damaged in its middle": {size / 2, []string{"524288+524288"}},
		"damaged at its end":    {size - 1, []string{"1048575+1"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &scripted{content: bytesOf(1, size)}
				sink := newTestSink(memory.New())
				g := newGroup(t, sink)
				var closed atomic.Int32
				seed := flight.NewSeed(damaged{bytes.NewReader(s.content), c.at, &closed})
				start := s.start()
				start.Seed = seed
				want := s.want()
				want.Size = size
				f, _ := g.join(t, want, start)
				defer f.Release()
				if joined, started := g.join(t, want, start); started {
					t.Error("there are two")
				} else {
					joined.Release()
				}
				var got bytes.Buffer
				if err := <-follow(f, &got); err != nil || !bytes.Equal(got.Bytes(), s.content) {
					t.Errorf("%d bytes, %v", got.Len(), err)
				}
				<-f.Done()
				s.wantAsked(t, c.asked...)
				if s.received != size-c.at || sink.quarantined != size || !sink.has(want.Digest) {
					t.Errorf("%d bytes were received, %d bytes quarantined, cached: %v", s.received, sink.quarantined, sink.has(want.Digest))
				}
				if closed.Load() != 0 {
					t.Error("the seed was closed with a user left")
				}
				if err := seed.Close(); err != nil || closed.Load() != 1 {
					t.Errorf("the seed was closed %d times: %v", closed.Load(), err)
				}
			})
		})
	}
}

func TestErrorsAndLogsIdentifyTheContent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := &scripted{content: bytesOf(1, 100), fail: upstream.ErrDenied}
		start := s.start()
		start.Log = slog.New(slog.NewTextHandler(&log, nil)).With("digest", "this one")
		g := newGroup(t, newTestSink(memory.New()))
		f, _ := g.join(t, s.want(), start)
		defer f.Release()
		<-f.Done()
		if want := "the scripted content: " + upstream.ErrDenied.Error(); f.Err().Error() != want {
			t.Errorf("the error is %q, want %q", f.Err(), want)
		}
		if !bytes.Contains(log.Bytes(), []byte(`msg="download failed" digest="this one" error="the scripted content: `)) {
			t.Errorf("the log says %s", log.Bytes())
		}
	})
}

// A size in a manifest may be wrong: the source's size counts.
func TestTheSizeComesFromTheSource(t *testing.T) {
	const size = 100 << 10
	for name, c := range map[string]struct {
		announced int64
		script    *scripted
		err       error
	}{
		"a manifest says less":                         {10, &scripted{}, nil},
		"a manifest says more":                         {5 << 20, &scripted{}, nil},
		"a manifest says nothing":                      {0, &scripted{}, nil},
		"a manifest says less, and the source nothing": {10, &scripted{noLength: true}, nil},
		"a manifest says more, and the source nothing": {5 << 20, &scripted{noLength: true}, nil},
		"what comes is a web page of another size":     {10, &scripted{mediaType: "text/html"}, upstream.ErrInvalidResponse},
		"what comes is a web page of that size":        {size, &scripted{mediaType: "text/html"}, nil},
		"the source ends late, where a manifest says where": {size, &scripted{noLength: true, bodies: func(_ int64, body []byte) io.ReadCloser {
			return io.NopCloser(io.MultiReader(bytes.NewReader(body), failing{upstream.ErrTimeout}))
		}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := c.script
				s.content = bytesOf(1, size)
				want := s.want()
				want.Size = c.announced
				sink := newTestSink(memory.New())
				f, _ := newGroup(t, sink).join(t, want, s.start())
				defer f.Release()
				var got bytes.Buffer
				err := <-follow(f, &got)
				<-f.Done()
				if !errors.Is(err, c.err) || c.err == nil && !bytes.Equal(got.Bytes(), s.content) || c.err != nil && got.Len() > 0 {
					t.Errorf("%d bytes, %v", got.Len(), err)
				}
				if sink.has(want.Digest) != (c.err == nil) || sink.expected != 0 {
					t.Errorf("cached: %v, expected: %d", sink.has(want.Digest), sink.expected)
				}
			})
		})
	}
}
