package flight_test

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/cache/memory"
	"github.com/entrepot/entrepot/proxy/flight"
	"github.com/entrepot/entrepot/upstream"
)

// inLine is a source that shares places with others.
type inLine struct {
	*scripted
	limited upstream.Registry
}

func (s inLine) Blob(ctx context.Context, from, n int64) (upstream.Content, error) {
	return s.limited.Blob(ctx, "app", s.want().Digest, from, n)
}

// oneBlob is a registry of these sources.
type oneBlob struct {
	upstream.Registry
	of map[cache.Digest]*scripted
}

func (r oneBlob) Blob(ctx context.Context, _ string, d cache.Digest, from, n int64) (upstream.Content, error) {
	return r.of[d].Blob(ctx, from, n)
}

// lineUp has sources share one place.
func lineUp(all ...*scripted) (starts []flight.StartOptions) {
	of := map[cache.Digest]*scripted{}
	limited := upstream.Limit(oneBlob{of: of}, 1)
	for _, s := range all {
		of[s.want().Digest] = s
		start := s.start()
		start.Source = inLine{s, limited}
		starts = append(starts, start)
	}
	return starts
}

func isDone(f *flight.Flight) bool {
	select {
	case <-f.Done():
		return true
	default:
		return false
	}
}

func TestWhatNobodyWaitsForWaitsForNoPlace(t *testing.T) {
	for _, look := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			before := &scripted{content: bytesOf(1, 1<<20), gate: make(chan struct{})}
			s := &scripted{content: bytesOf(2, 20<<20)}
			starts := lineUp(before, s)
			starts[1].Look = look
			g := newGroup(t, newTestSink(memory.New()))
			first, _ := g.join(t, before.want(), starts[0])
			synctest.Wait()
			join := func() (*flight.Flight, *flight.Reader) {
				f, _ := g.join(t, s.want(), starts[1])
				opts := flight.ReadOptions{}
				if look {
					opts.Parts = []cache.Span{{From: 9 << 20, To: 10 << 20}}
				}
				r := f.NewReader(opts)
				synctest.Wait()
				return f, r
			}
			leave := func(f *flight.Flight, r *flight.Reader) {
				r.Close()
				f.Release()
				synctest.Wait()
			}
			f, one := join()
			if _, two := join(); true {
				leave(f, two)
			}
			if isDone(f) || g.Len() != 2 {
				t.Errorf("one of two readers left: %d downloads", g.Len())
			}
			leave(f, one)
			if !isDone(f) || g.Len() != 1 {
				t.Errorf("all have left: %d downloads", g.Len())
			}
			s.wantAsked(t)
			s.wantNotified(t) // it has not failed
			again, r := join()
			if again == f {
				t.Error("a download that has ended was joined")
			}
			close(before.gate)
			got := &bytes.Buffer{}
			off, n := int64(0), int64(len(s.content))
			if look {
				off, n = 9<<20, 1<<20
			}
			if _, err := r.Follow(t.Context(), got, off, n); err != nil || !bytes.Equal(got.Bytes(), s.content[off:off+n]) {
				t.Errorf("who came later got %d bytes, %v", got.Len(), err)
			}
			r.Close()
			again.Release()
			first.Release()
		})
	}
}

// What the source has been asked for goes on when its readers leave.
func TestWhatHasItsPlaceGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := &scripted{content: bytesOf(1, 1<<20), gate: make(chan struct{})}
		s := &scripted{content: bytesOf(2, 1<<20), gate: make(chan struct{})}
		starts := lineUp(before, s)
		g := newGroup(t, newTestSink(memory.New()))
		first, _ := g.join(t, before.want(), starts[0])
		synctest.Wait()
		f, _ := g.join(t, s.want(), starts[1])
		synctest.Wait()
		close(before.gate)
		synctest.Wait()
		s.wantAsked(t, "0+-1")
		f.Release()
		first.Release()
		synctest.Wait()
		if isDone(f) {
			t.Errorf("the download has ended: %v", f.Err())
		}
		close(s.gate)
		<-f.Done()
		s.wantNotified(t, "answered 1048576", "completed 1048576")
	})
}
