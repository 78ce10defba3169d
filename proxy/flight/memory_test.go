package flight_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/proxy/flight"
)

// paced is a writer that takes so many bytes a second, but for some that it
// takes at once, like a socket with a large buffer.
type paced struct {
	bytes.Buffer
	rate   int64
	atOnce cache.Span
}

func (w *paced) Write(b []byte) (int, error) {
	if at := int64(w.Len()); w.rate > 0 && (at < w.atOnce.From || at >= w.atOnce.To) {
		time.Sleep(time.Second * time.Duration(len(b)) / time.Duration(w.rate))
	}
	return w.Buffer.Write(b)
}

// Ten clients of one blob that can't be stored cause two downloads at most, and
// a fast one does not go at the pace of a slow one.
func TestReadersThatAreTooSlowShareOneFurtherDownload(t *testing.T) {
	const size = 12 << 20
	content := bytesOf(9, size)
	for name, c := range map[string]struct {
		rates []int64
		fast  time.Duration // that the fastest takes at most
	}{
		"all of them fast":              {rates: make([]int64, 10), fast: 0},
		"one of them slow":              {rates: []int64{2 << 20, 0, 0, 0, 0, 0, 0, 0, 0, 0}, fast: 2 * time.Second},
		"one of them fast":              {rates: []int64{2 << 20, 2 << 20, 2 << 20, 3 << 20, 2 << 20, 3 << 20, 2 << 20, 2 << 20, 3 << 20, 0}, fast: 2 * time.Second},
		"all of them slow":              {rates: []int64{2 << 20, 2 << 20, 2 << 20, 2 << 20, 2 << 20, 2 << 20, 2 << 20, 2 << 20, 2 << 20, 2 << 20}, fast: 7 * time.Second},
		"two of them, each at its pace": {rates: []int64{2 << 20, 20 << 20}, fast: 5 * time.Second},
	} {
		for where, room := range map[string]int64{"from the start": 0, "from the middle": size / 3} {
			t.Run(name+" "+where, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := &scripted{content: content, gate: make(chan struct{}), noLength: room > 0}
					g := newGroup(t, newTestSink(memory.NewBounded(room)))
					began := time.Now()
					fastest := time.Hour
					var mu sync.Mutex
					var readers sync.WaitGroup
					for _, rate := range c.rates {
						f, _ := g.join(t, s.want(), s.start())
						readers.Go(func() {
							defer f.Release()
							got := &paced{rate: rate}
							got.Grow(size)
							if _, err := f.Follow(t.Context(), got, 0, -1); err != nil || !bytes.Equal(got.Bytes(), content) {
								t.Errorf("a reader got %d bytes and %v", got.Len(), err)
							}
							mu.Lock()
							defer mu.Unlock()
							fastest = min(fastest, time.Since(began))
						})
					}
					synctest.Wait()
					close(s.gate)
					readers.Wait()
					synctest.Wait()
					if asked := s.transcript(); len(asked) > 2 || s.received > 2*size {
						t.Errorf("the source was asked %q, and %d bytes were received", asked, s.received)
					}
					if fastest > c.fast {
						t.Errorf("the fastest took %s", fastest)
					}
				})
			})
		}
	}
}

// The further download does not pass those who are about to need it.
func TestReadersThatAreLeftBehindOneAfterTheOtherShareOneFurtherDownload(t *testing.T) {
	const size = 40 << 20
	content := bytesOf(7, size)
	for name, slow := range map[string][]*paced{
		"the first overtakes the second": {
			{rate: 2 << 20, atOnce: cache.Span{From: 3 << 20, To: 16 << 20}},
			{rate: 2 << 20, atOnce: cache.Span{To: 7 << 20}},
		},
		"the second is slower still": {
			{rate: 2 << 20, atOnce: cache.Span{From: 3 << 20, To: size}},
			{rate: 1 << 20, atOnce: cache.Span{To: 7 << 20}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &scripted{content: content, gate: make(chan struct{})}
				g := newGroup(t, newTestSink(memory.NewBounded(0)))
				began := time.Now()
				var readers sync.WaitGroup
				for i, got := range append(slow, &paced{}) {
					f, _ := g.join(t, s.want(), s.start())
					readers.Go(func() {
						defer f.Release()
						if _, err := f.Follow(t.Context(), got, 0, -1); err != nil || !bytes.Equal(got.Bytes(), content) {
							t.Errorf("reader %d got %d bytes and %v", i, got.Len(), err)
						}
						if took := time.Since(began); got.rate == 0 && took > 3*time.Second {
							t.Errorf("the fast one took %s", took)
						}
					})
				}
				synctest.Wait()
				close(s.gate)
				readers.Wait()
				synctest.Wait()
				if asked := s.transcript(); len(asked) > 2 || s.received > 2*size {
					t.Errorf("the source was asked %q, and %d bytes were received", asked, s.received)
				}
			})
		})
	}
}

func TestWhoComesTooLateForAFullDiskSharesAFurtherDownload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 18 << 20
		last := make(chan struct{})
		s := &scripted{content: bytesOf(8, size)}
		var once sync.Once
		s.bodies = func(_ int64, body []byte) io.ReadCloser {
			held := io.NopCloser(bytes.NewReader(body))
			once.Do(func() { held = heldAt(size-1, last)(0, body) })
			return held
		}
		g := newGroup(t, newTestSink(memory.NewBounded(0)))
		f, _ := g.join(t, s.want(), s.start())
		defer f.Release()
		var first bytes.Buffer
		done := follow(f, &first)
		synctest.Wait()
		var late sync.WaitGroup
		for i := range 5 {
			late.Go(func() {
				joined, started := g.join(t, s.want(), s.start())
				defer joined.Release()
				got := &paced{rate: int64(i+1) << 20}
				if _, err := joined.Follow(t.Context(), got, 0, -1); err != nil || started || !bytes.Equal(got.Bytes(), s.content) {
					t.Errorf("a late one got %d bytes, %v", got.Len(), err)
				}
			})
		}
		late.Wait()
		close(last)
		if err := <-done; err != nil || !bytes.Equal(first.Bytes(), s.content) {
			t.Errorf("the first got %d bytes, %v", first.Len(), err)
		}
		s.wantAsked(t, "0+-1", "0+-1")
	})
}

// A reader that leaves when it was left behind leaves nothing running.
func TestAReaderThatIsLeftBehindMayLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{content: bytesOf(8, 12<<20)}
		g := newGroup(t, newTestSink(memory.NewBounded(0)))
		f, _ := g.join(t, s.want(), s.start())
		leaves := make(chan struct{})
		r := f.NewReader(flight.ReadOptions{})
		left := make(chan error, 1)
		go func() {
			_, err := r.Follow(t.Context(), leaving{leaves}, 0, -1)
			r.Close()
			f.Release()
			left <- err
		}()
		joined, _ := g.join(t, s.want(), s.start())
		if err := <-follow(joined, io.Discard); err != nil {
			t.Error(err)
		}
		joined.Release()
		close(leaves)
		if err := <-left; err == nil {
			t.Error("it got all")
		}
		g.Wait() // or it would hang
	})
}

// leaving is the writer of a client that reads nothing, and then leaves.
type leaving struct{ leaves chan struct{} }

func (w leaving) Write([]byte) (int, error) {
	<-w.leaves
	return 0, io.ErrClosedPipe
}

// What is awaited is a little ahead of what the window holds when nobody reads
// yet.
func TestWhatIsAwaitedComesThoughNobodyReadsYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{content: bytesOf(8, 18<<20)}
		g := newGroup(t, newTestSink(memory.New()))
		f := g.StartPrivate(s.want(), s.start())
		defer f.Release()
		synctest.Wait()
		const at = 9 << 20
		r := f.NewReader(flight.ReadOptions{Parts: []cache.Span{{From: at, To: at + 10}}})
		defer r.Close()
		wait, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		if _, err := r.Await(wait, at, 10); err != nil || time.Since(began) > time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
	})
}

func TestDownloadsWithoutADiskShareTheMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, newTestSink(memory.NewBounded(0)))
		unstick := make(chan struct{})
		var come int64
		var all []*flight.Flight
		var readers sync.WaitGroup
		for i := range 24 {
			s := &scripted{content: bytesOf(byte(i), 6<<20)}
			f, _ := g.join(t, s.want(), s.start())
			all = append(all, f)
			readers.Go(func() {
				defer f.Release()
				var got bytes.Buffer
				if err := <-follow(f, io.MultiWriter(stuckWriter{unstick}, &got)); err != nil || !bytes.Equal(got.Bytes(), s.content) {
					t.Errorf("%d bytes and %v", got.Len(), err)
				}
			})
			synctest.Wait()
		}
		for _, f := range all[12:] {
			n, _ := f.Progress()
			come += n
		}
		if come > 64<<20 {
			t.Errorf("%d bytes are in memory", come)
		}
		close(unstick)
		readers.Wait()
	})
}

func TestADownloadThatWaitsForRoomHoldsNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := newTestSink(memory.New())
		room := make(chan struct{})
		sink.room = room
		g := flight.NewGroup(t.Context(), sink, flight.Options{Max: 2})
		defer g.Wait()
		var all []*scripted
		for i := range 10 {
			s := &scripted{content: bytesOf(byte(i), 100<<10)}
			all = append(all, s)
			f, _, err := g.Join(s.want(), s.start())
			if err != nil {
				t.Fatalf("download %d: %v", i, err)
			}
			var got bytes.Buffer
			if err := <-follow(f, &got); err != nil || !bytes.Equal(got.Bytes(), s.content) {
				t.Fatalf("download %d: %d bytes, %v", i, got.Len(), err)
			}
			f.Release()
			synctest.Wait()
			// What waits for room is known to the sink, and no longer expected.
			if sink.expected != 0 {
				t.Errorf("%d bytes are still expected", sink.expected)
			}
		}
		if g.Len() > 2 {
			t.Errorf("%d downloads are under way", g.Len())
		}
		close(room)
		synctest.Wait()
		kept := ""
		for _, s := range all {
			kept += fmt.Sprint(sink.has(s.want().Digest), " ")
		}
		if !sink.has(all[0].want().Digest) || !sink.has(all[9].want().Digest) {
			t.Errorf("once there is room there is %s", kept)
		}
	})
}
