package flight_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/proxy/flight"
	"github.com/entrepot/entrepot/upstream"
)

const heldBack = 4 << 10

func TestManyReadersOfOneDigestShareOneDownload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{content: bytesOf(1, 1<<20), gate: make(chan struct{})}
		sink := newTestSink(memory.New())
		g := newGroup(t, sink)
		var readers sync.WaitGroup
		for range 50 {
			readers.Go(func() {
				got, err := g.read(s.want(), s.start())
				if err != nil || !bytes.Equal(got, s.content) {
					t.Errorf("a reader got %d bytes and error %v", len(got), err)
				}
			})
		}
		synctest.Wait()
		if g.Len() != 1 || g.Get(s.want().Digest) == nil {
			t.Errorf("%d downloads are under way", g.Len())
		}
		close(s.gate)
		readers.Wait()
		synctest.Wait()
		s.wantAsked(t, "0+-1")
		s.wantNotified(t, "answered 1048576", "completed 1048576")
		if s.received != 1<<20 || sink.expected != 0 || g.Len() != 0 {
			t.Errorf("%d bytes were received, %d are expected, %d downloads are left", s.received, sink.expected, g.Len())
		}
		if f, started, err := g.Join(s.want(), s.start()); f != nil || started || err != nil {
			t.Errorf("what is cached is downloaded: %v, %v", started, err)
		}
		start := s.start()
		start.Refetch = true
		f, started := g.join(t, s.want(), start)
		defer f.Release()
		if !started {
			t.Error("what cannot be read is not downloaded again")
		}
	})
}

func TestTheFirstByteIsDeliveredBeforeTheLastArrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{content: bytesOf(2, 256<<10)}
		more := make(chan struct{})
		s.bodies = heldAt(128<<10, more)
		f, _ := newGroup(t, newTestSink(memory.New())).join(t, s.want(), s.start())
		defer f.Release()
		var got bytes.Buffer
		done := follow(f, &got)
		synctest.Wait()
		if got.Len() == 0 {
			t.Error("nothing arrived while the source still had bytes to send")
		}
		if come, whole := f.Progress(); come != 128<<10 || whole {
			t.Errorf("%d bytes have come, all of them: %v", come, whole)
		}
		if size, ok := f.KnownSize(); size != 256<<10 || !ok {
			t.Errorf("the size is %d: %v", size, ok)
		}
		close(more)
		if err := <-done; err != nil || !bytes.Equal(got.Bytes(), s.content) {
			t.Errorf("got %d bytes, error %v", got.Len(), err)
		}
		if come, whole := f.Progress(); come != 256<<10 || !whole {
			t.Errorf("in the end %d bytes have come, all of them: %v", come, whole)
		}
	})
}

func TestAReaderThatLeavesDoesNotStopTheDownload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{content: bytesOf(3, 64<<10), gate: make(chan struct{})}
		sink := newTestSink(memory.New())
		f, _ := newGroup(t, sink).join(t, s.want(), s.start())
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan error, 2)
		go func() {
			_, err := f.Size(ctx)
			left <- err
		}()
		go func() {
			_, err := f.Follow(ctx, io.Discard, 0, -1)
			left <- err
		}()
		synctest.Wait()
		leave()
		for range 2 {
			if err := <-left; !errors.Is(err, context.Canceled) {
				t.Errorf("the reader that left got %v", err)
			}
		}
		f.Release()
		close(s.gate)
		<-f.Done()
		if !sink.has(s.want().Digest) {
			t.Error("the content is not cached")
		}
	})
}

func TestDownloads(t *testing.T) {
	const size = 300 << 10
	content := bytesOf(4, size)
	cut := fmt.Errorf("%w: connection reset", upstream.ErrUnavailable)
	corrupt := bytes.Clone(content)
	corrupt[size/2] ^= 1
	for name, c := range map[string]struct {
		script *scripted
		err    error // what a reader sees; nil means the whole content
		asked  []string
		told   []string
	}{
		"one that is cut is resumed at its offset": {
			script: &scripted{bodies: func(from int64, body []byte) io.ReadCloser {
				if from == 0 {
					return cutAfter(body, 100<<10, cut)
				}
				return io.NopCloser(bytes.NewReader(body))
			}},
			asked: []string{"0+-1", "102400+204800"},
			told:  []string{"answered 307200", "completed 307200"},
		},
		"one that is cut goes on where the source knows no Range": {
			script: &scripted{noRange: true, bodies: onceThen(func(body []byte) io.ReadCloser { return cutAfter(body, 100<<10, cut) })},
			asked:  []string{"0+-1", "102400+204800"},
			told:   []string{"answered 307200", "completed 307200"},
		},
		"one whose body ends early without an error is resumed": {
			script: &scripted{bodies: onceThen(func(body []byte) io.ReadCloser { return cutAfter(body, 100<<10, io.EOF) })},
			asked:  []string{"0+-1", "102400+204800"},
			told:   []string{"answered 307200", "completed 307200"},
		},
		"one that is silent in the middle is resumed": {
			script: &scripted{bodies: onceThen(func(body []byte) io.ReadCloser { return cutAfter(body, 10<<10, upstream.ErrTimeout) })},
			asked:  []string{"0+-1", "10240+296960"},
			told:   []string{"answered 307200", "completed 307200"},
		},
		"one that never gets further fails in the end": {
			script: &scripted{bodies: func(from int64, body []byte) io.ReadCloser {
				if from == 0 {
					return cutAfter(body, 100<<10, cut)
				}
				return cutAfter(body, 0, cut)
			}},
			err:   upstream.ErrUnavailable,
			asked: append([]string{"0+-1"}, slices.Repeat([]string{"102400+204800"}, 4)...),
			told:  []string{"answered 307200", "failed"},
		},
		"one that is cut before its first byte fails at once": {
			script: &scripted{bodies: func(_ int64, body []byte) io.ReadCloser { return cutAfter(body, 0, cut) }},
			err:    upstream.ErrUnavailable,
			asked:  []string{"0+-1"},
			told:   []string{"answered 307200", "failed"},
		},
		"one with a wrong byte is refused": {
			script: &scripted{bodies: func(int64, []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(corrupt)) }},
			err:    cache.ErrMismatch,
			asked:  []string{"0+-1"},
			told:   []string{"answered 307200", "failed"},
		},
		"one that is longer than announced is refused": {
			script: &scripted{bodies: func(_ int64, body []byte) io.ReadCloser {
				return io.NopCloser(bytes.NewReader(append(bytes.Clone(body), 'x')))
			}},
			err:   upstream.ErrInvalidResponse,
			asked: []string{"0+-1"},
			told:  []string{"answered 307200", "failed"},
		},
		"one that is not there is not found": {
			script: &scripted{fail: upstream.ErrNotFound},
			err:    upstream.ErrNotFound,
			asked:  []string{"0+-1"},
			told:   []string{"failed"},
		},
		"one that is denied is denied": {
			script: &scripted{fail: upstream.ErrDenied},
			err:    upstream.ErrDenied,
			asked:  []string{"0+-1"},
			told:   []string{"failed"},
		},
		"one without a size is whole at its end": {
			script: &scripted{noLength: true},
			asked:  []string{"0+-1"},
			told:   []string{"answered -1", "completed 307200"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := c.script
				s.content = content
				sink := newTestSink(memory.New())
				g := newGroup(t, sink)
				f, _ := g.join(t, s.want(), s.start())
				defer f.Release()
				var got bytes.Buffer
				err := <-follow(f, &got)
				<-f.Done()
				if !errors.Is(err, c.err) || !errors.Is(f.Err(), c.err) {
					t.Errorf("the reader got %v and the download says %v, want %v", err, f.Err(), c.err)
				}
				if _, err := f.Size(t.Context()); !errors.Is(err, c.err) {
					t.Errorf("whoever asks for the size gets %v", err)
				}
				if c.err == nil && !bytes.Equal(got.Bytes(), content) {
					t.Errorf("got %d bytes, or other ones, of %d", got.Len(), size)
				}
				if c.err != nil && got.Len() > size-heldBack {
					t.Errorf("got %d of %d bytes of what was never proven", got.Len(), size)
				}
				if kept := sink.has(s.want().Digest); kept != (c.err == nil) {
					t.Errorf("cached: %v", kept)
				}
				s.wantAsked(t, c.asked...)
				s.wantNotified(t, c.told...)
				// Whatever happened, the next download works.
				next := &scripted{content: content}
				start := next.start()
				start.Refetch = true
				if got, err := g.read(next.want(), start); err != nil || !bytes.Equal(got, content) {
					t.Errorf("the next one got %d bytes and %v", len(got), err)
				}
			})
		})
	}
}

// onceThen replaces the first body.
func onceThen(first func(body []byte) io.ReadCloser) func(int64, []byte) io.ReadCloser {
	var once sync.Once
	return func(_ int64, body []byte) (rc io.ReadCloser) {
		rc = io.NopCloser(bytes.NewReader(body))
		once.Do(func() { rc = first(body) })
		return rc
	}
}

func TestTheLastBytesAreHeldBackUntilTheDigestIsVerified(t *testing.T) {
	const size = 64 << 10
	for name, c := range map[string]struct {
		announced int64
		noLength  bool
		out       int // before the last byte is in
	}{
		"the source tells the size":               {announced: -1, out: size - heldBack},
		"a manifest tells the same":               {announced: size, out: size - heldBack},
		"a manifest tells another size":           {announced: size + 1, out: 0},
		"nobody tells it":                         {announced: -1, noLength: true, out: size - 1 - heldBack},
		"a manifest alone tells it":               {announced: size, noLength: true, out: size - 1 - heldBack},
		"a manifest alone tells one that is less": {announced: size / 2, noLength: true, out: size/2 - heldBack},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				last := make(chan struct{})
				s := &scripted{content: bytesOf(11, size), noLength: c.noLength}
				s.bodies = heldAt(size-1, last)
				want := s.want()
				want.Size = c.announced
				f, _ := newGroup(t, newTestSink(memory.New())).join(t, want, s.start())
				defer f.Release()
				var got bytes.Buffer
				done := follow(f, &got)
				synctest.Wait()
				if got.Len() != c.out {
					t.Errorf("%d bytes are out before the last one is in, want %d", got.Len(), c.out)
				}
				close(last)
				if err := <-done; err != nil || !bytes.Equal(got.Bytes(), s.content) {
					t.Errorf("in the end %d bytes and %v", got.Len(), err)
				}
			})
		})
	}
}

func TestRangesAreFollowedFromTheirOwnOffset(t *testing.T) {
	const size = 1 << 20
	synctest.Test(t, func(t *testing.T) {
		more := make(chan struct{})
		s := &scripted{content: bytesOf(12, size), bodies: heldAt(size/2, more)}
		f, _ := newGroup(t, newTestSink(memory.New())).join(t, s.want(), s.start())
		defer f.Release()
		var early, late bytes.Buffer
		if n, err := f.Follow(t.Context(), &early, 1000, 5000); n != 5000 || err != nil || !bytes.Equal(early.Bytes(), s.content[1000:6000]) {
			t.Errorf("what has come: %d bytes, %v", n, err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := f.Follow(context.Background(), &late, size-10_000, 10_000)
			done <- err
		}()
		synctest.Wait()
		if late.Len() > 0 {
			t.Errorf("%d bytes came before they were there", late.Len())
		}
		// A source can be asked for them in parallel to the download.
		pass := &scripted{content: s.content}
		for off, n := range map[int64]int64{size - 100: 50, size - 200: -1} {
			var passed bytes.Buffer
			want := s.content[off:]
			if n >= 0 {
				want = want[:n]
			}
			if written, err := f.PassThrough(t.Context(), &passed, pass, off, n, pass.Received); written != int64(len(want)) || err != nil || !bytes.Equal(passed.Bytes(), want) {
				t.Errorf("passed through: %d bytes, %v", written, err)
			}
		}
		if pass.received != 250 {
			t.Errorf("%d bytes were received", pass.received)
		}
		pass.noRange = true
		if _, err := f.PassThrough(t.Context(), io.Discard, pass, size-100, 50, pass.Received); !errors.Is(err, upstream.ErrUnsupported) {
			t.Errorf("without ranges: %v", err)
		}
		close(more)
		if err := <-done; err != nil || !bytes.Equal(late.Bytes(), s.content[size-10_000:]) {
			t.Errorf("in the end %d bytes, %v", late.Len(), err)
		}
		if _, err := f.Follow(t.Context(), io.Discard, size-10, 20); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("a range past the end: %v", err)
		}
		s.wantAsked(t, "0+-1")
	})
}

func TestAFullDiskPreventsStoringButNotReading(t *testing.T) {
	const size = 18 << 20 // more than two windows
	content := bytesOf(7, size)
	corrupt := bytes.Clone(content)
	corrupt[size/4] ^= 1
	for name, c := range map[string]struct {
		room     int64
		noLength bool // then room is not asked for beforehand
		sent     []byte
		err      error
	}{
		"full from the start":                   {0, false, content, nil},
		"full in the middle of a draft":         {size / 2, true, content, nil},
		"full from the start, and a wrong byte": {0, false, corrupt, cache.ErrMismatch},
		"full behind a wrong byte":              {size / 2, true, corrupt, cache.ErrMismatch},
		"full before a wrong byte":              {size / 8, true, corrupt, cache.ErrMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sink := newTestSink(memory.NewBounded(c.room))
				s := &scripted{content: content, noLength: c.noLength, gate: make(chan struct{})}
				s.bodies = func(int64, []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(c.sent)) }
				g := newGroup(t, sink)
				var readers sync.WaitGroup
				for range 3 {
					f, _ := g.join(t, s.want(), s.start())
					readers.Go(func() {
						defer f.Release()
						var got bytes.Buffer
						err := <-follow(f, &got)
						if !errors.Is(err, c.err) || !bytes.Equal(got.Bytes(), c.sent[:got.Len()]) || (got.Len() == size) != (c.err == nil) {
							t.Errorf("a reader got %d bytes and %v", got.Len(), err)
						}
					})
				}
				synctest.Wait()
				close(s.gate)
				readers.Wait()
				synctest.Wait()
				if sink.notKept != 1 {
					t.Errorf("it was noted %d times that the content is not cached", sink.notKept)
				}
				if sink.has(s.want().Digest) {
					t.Error("content is cached without room for it")
				}
				s.wantAsked(t, "0+-1")
			})
		})
	}
}

type stuckWriter struct{ until <-chan struct{} }

func (w stuckWriter) Write(b []byte) (int, error) {
	<-w.until
	return len(b), nil
}

func TestAStuckReaderDoesNotHoldUpTheOthersWhenTheDiskIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{content: bytesOf(8, 18<<20), gate: make(chan struct{})}
		g := newGroup(t, newTestSink(memory.NewBounded(0)))
		f, _ := g.join(t, s.want(), s.start())
		defer f.Release()
		unstick := make(chan struct{})
		stuck := follow(f, stuckWriter{unstick})
		var got bytes.Buffer
		free := follow(f, &got)
		synctest.Wait()
		close(s.gate)
		if err := <-free; err != nil || !bytes.Equal(got.Bytes(), s.content) {
			t.Errorf("the reader that reads got %d bytes and %v", got.Len(), err)
		}
		close(unstick)
		if err := <-stuck; err != nil {
			t.Errorf("the stuck reader got %v", err)
		}
		s.wantAsked(t, "0+-1", "0+-1") // it had not got anything
		if _, err := f.Follow(t.Context(), io.Discard, 0, -1); err != nil {
			t.Errorf("whoever comes too late gets %v", err)
		}
		s.wantAsked(t, "0+-1")
	})
}

func TestAPrivateDownloadWaitsForItsReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := newTestSink(memory.New())
		s := &scripted{content: bytesOf(8, 18<<20)}
		g := newGroup(t, sink)
		f := g.StartPrivate(s.want(), s.start())
		defer f.Release()
		if g.Len() != 0 || g.Get(s.want().Digest) != nil {
			t.Error("it can be joined")
		}
		unstick := make(chan struct{})
		var got bytes.Buffer
		done := follow(f, io.MultiWriter(stuckWriter{unstick}, &got))
		select {
		case <-f.Done(): // the clock goes on only while everybody waits
			t.Error("it went on without its reader")
		case <-afterHours():
		}
		close(unstick)
		if err := <-done; err != nil || !bytes.Equal(got.Bytes(), s.content) {
			t.Errorf("%d bytes and %v", got.Len(), err)
		}
		<-f.Done()
		if sink.has(s.want().Digest) || sink.notKept > 0 {
			t.Error("it is cached, or was to be")
		}
	})
}

// Clients that ask and leave leave nothing behind at an upstream that is slow.
func TestAPrivateDownloadEndsWithItsReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{content: bytesOf(8, 1<<20), gate: make(chan struct{})}
		f := newGroup(t, newTestSink(memory.New())).StartPrivate(s.want(), s.start())
		synctest.Wait()
		f.Release()
		began := time.Now()
		<-f.Done()
		if took := time.Since(began); took > 0 {
			t.Errorf("it ended after %s", took)
		}
		s.wantNotified(t) // its end says nothing about the upstream
	})
}

func TestADownloadOnAFullDiskEndsWithoutReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		more := make(chan struct{})
		s := &scripted{content: bytesOf(8, 18<<20), bodies: heldAt(1<<20, more)}
		f, _ := newGroup(t, newTestSink(memory.NewBounded(0))).join(t, s.want(), s.start())
		f.Release()
		synctest.Wait()
		close(more)
		<-f.Done()
		if come, _ := f.Progress(); come > 9<<20 || !errors.Is(f.Err(), flight.ErrReaderTooSlow) {
			t.Errorf("%d bytes came for nobody: %v", come, f.Err())
		}
		s.wantAsked(t, "0+-1")
	})
}
