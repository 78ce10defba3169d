package flight_test

import (
	"bytes"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/proxy/flight"
)

// places counts the answers of a source that are being read.
type places struct {
	mu    sync.Mutex
	held  int
	since time.Time // one has been held
	most  time.Duration
}

func (p *places) hold(_ int64, body []byte) io.ReadCloser {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held++; p.held == 1 {
		p.since = time.Now()
	}
	return &heldPlace{Reader: bytes.NewReader(body), p: p}
}

func (p *places) now() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held
}

// longest is for how long one was held at once.
func (p *places) longest() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held > 0 {
		return max(p.most, time.Since(p.since))
	}
	return p.most
}

type heldPlace struct {
	io.Reader
	p    *places
	once sync.Once
}

func (h *heldPlace) Close() error {
	h.once.Do(func() {
		h.p.mu.Lock()
		defer h.p.mu.Unlock()
		h.p.most = max(h.p.most, time.Since(h.p.since))
		h.p.held--
	})
	return nil
}

// A slow reader does not hold what others wait for at the source, whether what
// it reads is held in memory or passed through. It gets all of it.
func TestNoPlaceAtASourceIsHeldAtTheReadersPace(t *testing.T) {
	const size = 20 << 20
	all := bytesOf(3, size)
	for name, c := range map[string]struct {
		read func(t *testing.T, s *scripted, w io.Writer) error
		rate int64
		most int // requests
	}{
		"a window in memory": {rate: 64 << 10, most: 6, read: func(t *testing.T, s *scripted, w io.Writer) error {
			f, _ := newGroup(t, newTestSink(memory.NewBounded(0))).join(t, s.want(), s.start())
			defer f.Release()
			return <-follow(f, w)
		}},
		"a private download": {rate: 64 << 10, most: 6, read: func(t *testing.T, s *scripted, w io.Writer) error {
			f := newGroup(t, newTestSink(memory.NewBounded(0))).StartPrivate(s.want(), s.start())
			defer f.Release()
			return <-follow(f, w)
		}},
		"passed through": {rate: 64 << 10, most: size>>17 + 2, read: func(t *testing.T, s *scripted, w io.Writer) error {
			_, err := flight.PassThrough(t.Context(), w, s, 0, size, s.Received)
			return err
		}},
		"passed through, at a MiB a second": {rate: 1 << 20, most: 12, read: func(t *testing.T, s *scripted, w io.Writer) error {
			_, err := flight.PassThrough(t.Context(), w, s, 0, size, s.Received)
			return err
		}},
		"passed through, at 10 MiB a second": {rate: 10 << 20, most: 2, read: func(t *testing.T, s *scripted, w io.Writer) error {
			_, err := flight.PassThrough(t.Context(), w, s, 0, size, s.Received)
			return err
		}},
	} {
		for _, awaited := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var held places
					s := &scripted{content: all, bodies: held.hold, awaited: func() bool { return awaited }}
					got := &paced{rate: c.rate}
					got.Grow(size)
					if err := c.read(t, s, got); err != nil || !bytes.Equal(got.Bytes(), all) {
						t.Errorf("%d bytes, %v", got.Len(), err)
					}
					asked := s.transcript()
					if awaited && held.longest() > 2500*time.Millisecond {
						t.Errorf("a place was held for %s", held.longest())
					}
					if most := c.most; awaited && len(asked) > most || !awaited && len(asked) != 1 {
						t.Errorf("%d requests: %q", len(asked), asked)
					}
					if again := s.received - size; again > int64(len(asked))<<17 {
						t.Errorf("%d bytes were received again, with %d requests", again, len(asked))
					}
				})
			})
		}
	}
}

// Who waits comes while a reader is stuck.
func TestAStuckReaderGivesAwayItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var held places
		var awaited atomic.Bool
		s := &scripted{content: bytesOf(4, 1<<20), bodies: held.hold, awaited: awaited.Load}
		unstick := make(chan struct{})
		var got bytes.Buffer
		done := make(chan error, 1)
		go func() {
			_, err := flight.PassThrough(t.Context(), io.MultiWriter(stuckWriter{unstick}, &got), s, 0, 1<<20, s.Received)
			done <- err
		}()
		time.Sleep(time.Hour)
		if n := held.now(); n != 1 {
			t.Fatalf("%d places are held", n)
		}
		awaited.Store(true)
		time.Sleep(time.Second / 2)
		if n := held.now(); n != 0 {
			t.Errorf("%d places are held half a second after others wait", n)
		}
		awaited.Store(false)
		close(unstick)
		if err := <-done; err != nil || !bytes.Equal(got.Bytes(), s.content) {
			t.Errorf("%d bytes, %v", got.Len(), err)
		}
		s.wantAsked(t, "0+1048576", "131072+917504")
	})
}

// A source that begins anew each time is not left.
func TestASourceWithoutRangesIsLeftOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{content: bytesOf(5, 40<<20), noRange: true, awaited: func() bool { return true }}
		f, _ := newGroup(t, newTestSink(memory.NewBounded(0))).join(t, s.want(), s.start())
		defer f.Release()
		got := &paced{rate: 64 << 10}
		got.Grow(len(s.content))
		if err := <-follow(f, got); err != nil || !slices.Equal(got.Bytes(), s.content) {
			t.Errorf("%d bytes, %v", got.Len(), err)
		}
		if asked := s.transcript(); len(asked) > 2 {
			t.Errorf("it was asked %q", asked)
		}
		var first bytes.Buffer
		_, err := flight.PassThrough(t.Context(), io.MultiWriter(&paced{rate: 64 << 10}, &first), s, 0, 1<<20, s.Received)
		if err != nil || !bytes.Equal(first.Bytes(), s.content[:1<<20]) {
			t.Errorf("of what is passed through %d bytes came, %v", first.Len(), err)
		}
		s.wantAsked(t, "0+1048576")
	})
}
