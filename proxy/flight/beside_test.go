package flight_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/cachetest/content"
	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/proxy/flight"
	"github.com/entrepot/entrepot/upstream"
)

// wayward is a scripted source whose answers to requests after the first are
// changed.
type wayward struct {
	*scripted
	answer func(c upstream.Content, from, n int64) (upstream.Content, error)

	mu       sync.Mutex
	requests int
	underWay int
	most     int // at once
	sent     int64
}

func (w *wayward) Blob(ctx context.Context, from, n int64) (upstream.Content, error) {
	w.mu.Lock()
	w.requests++
	first := w.requests == 1
	w.underWay++
	w.most = max(w.most, w.underWay)
	w.mu.Unlock()
	c, err := w.scripted.Blob(ctx, from, n)
	if err == nil && w.answer != nil && !first {
		c, err = w.answer(c, from, n)
	}
	if err != nil {
		w.done(0)
		return c, err
	}
	c.Body = &countedBody{ReadCloser: c.Body, of: w}
	return c, nil
}

func (w *wayward) done(sent int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.underWay--
	w.sent += sent
}

// countedBody takes a moment for each read, as a line does.
type countedBody struct {
	io.ReadCloser
	of   *wayward
	sent int64
	over sync.Once
}

func (b *countedBody) Read(p []byte) (int, error) {
	time.Sleep(time.Millisecond)
	n, err := b.ReadCloser.Read(p)
	b.sent += int64(n)
	return n, err
}

func (b *countedBody) Close() error {
	b.over.Do(func() { b.of.done(b.sent) })
	return b.ReadCloser.Close()
}

// part is the smallest part that these downloads request beside others.
const part = 512 << 10

func newGroupOfParts(t *testing.T, sink flight.Sink) group {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	g := group{flight.NewGroup(ctx, sink, flight.Options{Max: 100, Small: part, SideBySide: 2 * part}), stop}
	t.Cleanup(func() {
		stop()
		g.Wait()
	})
	return g
}

// TestLargeContentIsFetchedSideBySide downloads content of which the source
// answers the first request as it should, and later ones in each of the ways that
// sources fail in: each is read right, and over one connection in the end.
func TestLargeContentIsFetchedSideBySide(t *testing.T) {
	const size = 6*part + 7
	all := bytesOf(3, size)
	broken := fmt.Errorf("%w: cut", upstream.ErrUnavailable)
	once := func(then func(c upstream.Content, from, n int64) (upstream.Content, error)) func(c upstream.Content, from, n int64) (upstream.Content, error) {
		var mu sync.Mutex
		over := false
		return func(c upstream.Content, from, n int64) (upstream.Content, error) {
			mu.Lock()
			first := !over
			over = true
			mu.Unlock()
			if !first {
				return c, nil
			}
			return then(c, from, n)
		}
	}
	for name, c := range map[string]struct {
		connections  int
		unknown      bool // no manifest gives the size
		noRange      bool
		answer       func(c upstream.Content, from, n int64) (upstream.Content, error)
		most, stale  int   // at once, and besides that are being ended
		sent         int64 // at most, beside the content
		least, times int   // it takes of what one connection does, in percent
	}{
		"one connection":            {connections: 1, most: 1, times: 101},
		"four":                      {connections: 4, most: 4, times: 35},
		"two":                       {connections: 2, most: 2, times: 60},
		"nobody knows the size":     {connections: 4, unknown: true, most: 4, sent: size / 64, times: 40},
		"there are no ranges":       {connections: 4, noRange: true, most: 1, times: 101},
		"that shows at the second":  {connections: 4, unknown: true, noRange: true, most: 2, sent: size / 64, times: 105},
		"the second one is refused": {connections: 4, answer: once(func(c upstream.Content, _, _ int64) (upstream.Content, error) { return refused(c) }), most: 3, stale: 1, times: 70},
		"all others are refused":    {connections: 4, unknown: true, answer: func(c upstream.Content, _, _ int64) (upstream.Content, error) { return refused(c) }, most: 2, times: 101},
		"one is cut": {connections: 4, answer: once(func(c upstream.Content, _, _ int64) (upstream.Content, error) {
			b, _ := io.ReadAll(c.Body)
			c.Body = cutAfter(b, part/2, broken)
			return c, nil
		}), most: 4, times: 60},
		"each one is cut": {connections: 4, unknown: true, answer: func(c upstream.Content, from, _ int64) (upstream.Content, error) {
			b, _ := io.ReadAll(c.Body)
			c.Body = cutAfter(b, part/2, broken)
			return c, nil
		}, most: 4, times: 9000},
		"they have another ETag each": {connections: 4, answer: func(c upstream.Content, from, _ int64) (upstream.Content, error) {
			c.ETag = fmt.Sprintf(`"%d"`, from)
			return c, nil
		}, most: 2, stale: 6, sent: size / 2, times: 205},
		"one is of another size": {connections: 4, answer: once(func(c upstream.Content, _, _ int64) (upstream.Content, error) {
			c.Size++
			return c, nil
		}), most: 3, stale: 1, times: 70},
		"one never begins": {connections: 4, answer: once(func(c upstream.Content, _, _ int64) (upstream.Content, error) {
			return upstream.Content{}, fmt.Errorf("%w: no header", upstream.ErrTimeout)
		}), most: 3, stale: 1, times: 70},
		"others wait for the places": {connections: 4, answer: func(c upstream.Content, from, _ int64) (upstream.Content, error) {
			c.IsAwaited = func() bool { return true }
			return c, nil
		}, most: 4, least: 80, times: 105},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &wayward{scripted: &scripted{content: all, noRange: c.noRange, etag: `"0"`}, answer: c.answer}
				sink := newTestSink(memory.New())
				g := newGroupOfParts(t, sink)
				want := cache.Descriptor{Digest: content.Digest(all), Size: size}
				if c.unknown {
					want.Size = -1
				}
				start := w.start()
				start.Source, start.Connections = w, c.connections
				began := time.Now()
				got, err := g.read(want, start)
				took := time.Since(began)
				synctest.Wait()
				if err != nil || !bytes.Equal(got, all) || !sink.has(want.Digest) {
					t.Fatalf("%d bytes, %v, cached: %v", len(got), err, sink.has(want.Digest))
				}
				alone := time.Duration(size/(128<<10)+1) * time.Millisecond
				if most := alone * time.Duration(c.times) / 100; took > most || took < alone*time.Duration(c.least)/100 {
					t.Errorf("it took %s, of %s over one connection", took, alone)
				}
				if w.most < c.most || w.most > c.most+c.stale || w.sent-size > c.sent || w.sent < size {
					t.Errorf("at most %d requests at once, want %d; %d bytes too many were sent, at most %d may be", w.most, c.most, w.sent-size, c.sent)
				}
				if w.underWay != 0 {
					t.Errorf("%d bodies are left open", w.underWay)
				}
			})
		})
	}
}

func refused(c upstream.Content) (upstream.Content, error) {
	c.Body.Close()
	return upstream.Content{}, fmt.Errorf("%w: %s", upstream.ErrUnavailable, http.StatusText(http.StatusTooManyRequests))
}

// TestWrongBytesBesideTheFillAreNotServedAsTheContent: the digest decides, as it
// does over one connection.
func TestWrongBytesBesideTheFillAreNotServedAsTheContent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := bytesOf(4, 6*part)
		w := &wayward{scripted: &scripted{content: all}, answer: func(c upstream.Content, from, _ int64) (upstream.Content, error) {
			b, err := io.ReadAll(c.Body)
			if from >= 4*part {
				b[0] ^= 1
			}
			c.Body = io.NopCloser(bytes.NewReader(b))
			return c, err
		}}
		sink := newTestSink(memory.New())
		g := newGroupOfParts(t, sink)
		start := w.start()
		start.Source, start.Connections = w, 4
		got, err := g.read(cache.Descriptor{Digest: content.Digest(all), Size: 6 * part}, start)
		if err == nil || len(got) == len(all) || sink.has(content.Digest(all)) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}

// TestAnUpstreamThatRefusesConnectionsIsAskedOverOne remembers for a while that
// requests beside others have failed.
func TestAnUpstreamThatRefusesConnectionsIsAskedOverOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroupOfParts(t, newTestSink(memory.New()))
		for i, c := range []struct {
			upstream string
			after    time.Duration
			most     int
		}{{"hub", 0, 4}, {"hub", 0, 1}, {"other", 0, 4}, {"hub", 11 * time.Minute, 4}} {
			time.Sleep(c.after)
			all := bytesOf(byte(i), 6*part)
			w := &wayward{scripted: &scripted{content: all, upstream: c.upstream}}
			if i == 0 {
				w.answer = func(c upstream.Content, from, _ int64) (upstream.Content, error) {
					w.mu.Lock()
					defer w.mu.Unlock()
					if w.underWay < 4 {
						return c, nil
					}
					return refused(c)
				}
			}
			start := w.start()
			start.Source, start.Connections = w, 4
			if got, err := g.read(cache.Descriptor{Digest: content.Digest(all), Size: 6 * part}, start); err != nil || len(got) != len(all) {
				t.Errorf("%d: %d bytes, %v", i, len(got), err)
			}
			if w.most != c.most {
				t.Errorf("%d: %d requests at once, want %d", i, w.most, c.most)
			}
		}
	})
}

var _ flight.Source = (*wayward)(nil)
