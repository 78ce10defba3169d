package flight

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/upstream"
)

// With requests beside the fill, too, each byte is received once, whoever asks
// for what, and nothing is asked for beside a source that may have no ranges.
func TestEachByteIsRequestedOnceSideBySide(t *testing.T) {
	most := 0
	for seed := range uint64(400) {
		m := newSimulation(t, seed, 1+rand.New(rand.NewPCG(seed, 2)).Int64N(200*mib))
		m.s.lanes = newLanes(2+m.rand.IntN(5), [...]int64{-1, m.total, m.total / 2, m.total * 2}[m.rand.IntN(4)])
		m.beside = m.s.lanes.most - 1
		m.s.ranged = m.rand.IntN(2) == 0
		for range 1 + m.rand.IntN(4) {
			switch m.rand.IntN(3) {
			case 0:
				m.toEnd(m.rand.Int64N(m.total))
			case 1:
				from := m.rand.Int64N(m.total)
				m.look(cache.Span{From: from, To: min(m.total, from+1+m.rand.Int64N(m.total))})
			default:
				m.whole()
			}
			for range m.rand.IntN(100) {
				if m.start(); len(m.s.requests) > 0 {
					m.deliver()
				}
			}
			if m.rand.IntN(20) == 0 {
				m.s.lanes.off()
			}
		}
		m.run()
		most = max(most, m.most)
		if m.received != m.s.have.Len() || m.s.twice > m.total/passOver {
			t.Errorf("seed %d: %d bytes were received, %d of them again, for %d", seed, m.received, m.s.twice, m.s.have.Len())
		}
	}
	if most < 4 {
		t.Errorf("at most %d requests were under way", most)
	}
}

// What one client reads from the start on is asked for in parts that end where
// the next begins: no connection is closed that has more to send.
func TestPartsSideBySideAreNotCutOff(t *testing.T) {
	for _, total := range []int64{8 * mib, 9*mib + 1, 85_000_000, 256 * mib} {
		m := newSimulation(t, 1, total)
		m.s.lanes, m.s.ranged, m.beside = newLanes(4, total), true, 3
		m.whole()
		m.run()
		if m.closed > 0 || m.most < 2 || m.s.twice > 0 {
			t.Errorf("%d bytes: %d connections were closed, at most %d requests, %d bytes twice: %v", total, m.closed, m.most, m.s.twice, m.log)
		}
	}
	small := newSimulation(t, 1, 8*mib-1)
	small.s.lanes, small.s.ranged = newLanes(4, 8*mib-1), true
	small.whole()
	small.run()
	if small.most > 1 || len(small.log) > 1 {
		t.Errorf("a small blob: %v", small.log)
	}
}

// A source that has not shown that it has ranges is asked for one beside the
// fill, until it has.
func TestWhetherThereAreRangesIsAskedOnce(t *testing.T) {
	s := schedule{total: 200 * mib, sizes: sizes{smallContent, 2 * smallContent}, fill: true, lanes: newLanes(4, -1)}
	start := func() (n int) {
		for r, _ := s.next(nil); r != nil; r, _ = s.next(nil) {
			s.requests = append(s.requests, r)
			n++
		}
		return n
	}
	if n := start(); n != 2 {
		t.Errorf("%d requests before it is known", n)
	}
	if s.ranged = true; start() != 2 {
		t.Errorf("%d requests in all", len(s.requests))
	}
	s.doubtful, s.requests = true, s.requests[:1]
	if n := start(); n != 0 {
		t.Errorf("%d requests of a source that had none lately", n)
	}
}

// line is an upstream as a schedule of lanes sees it.
func trySideBySide(l *lanes, seconds int, rate func(n int) float64) (received float64) {
	now := time.Unix(0, 0)
	for range int(time.Duration(seconds) * time.Second / judgeEvery) {
		received += rate(l.count()) * judgeEvery.Seconds()
		now = now.Add(judgeEvery)
		l.judge(now, int64(received), l.count())
	}
	return received
}

// As many requests are under way as bring something.
func TestHowManyRequestsSideBySideAreWorthIt(t *testing.T) {
	for name, c := range map[string]struct {
		rate func(n int) float64
		want int
	}{
		"each connection has its bound": {func(n int) float64 { return float64(n) * 100e6 }, 4},
		"all share one":                 {func(int) float64 { return 100e6 }, 1},
		"two fill the line":             {func(n int) float64 { return min(float64(n)*60e6, 120e6) }, 2},
		"each further one costs":        {func(n int) float64 { return 100e6 / float64(n) }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLanes(4, -1)
			if l.count() != 4 {
				t.Fatalf("begins with %d", l.count())
			}
			trySideBySide(&l, 60, c.rate)
			counts := map[int]int{}
			for range 60 {
				trySideBySide(&l, 1, c.rate)
				counts[l.count()]++
			}
			if counts[c.want] < 50 {
				t.Errorf("want %d, and after a minute it is, in seconds of the next: %v", c.want, counts)
			}
		})
	}
}

// A line that has become free is noticed.
func TestMoreRequestsSideBySideAreTriedAgain(t *testing.T) {
	l := newLanes(4, -1)
	trySideBySide(&l, 30, func(int) float64 { return 100e6 })
	if l.count() != 1 {
		t.Fatalf("%d of a line that has no more", l.count())
	}
	trySideBySide(&l, 120, func(n int) float64 { return float64(n) * 100e6 })
	if l.count() != 4 {
		t.Errorf("%d of a line that has more now", l.count())
	}
}

// Whether one that has ended with an error speaks against all.
func TestWhatARequestBesideOthersEndsWith(t *testing.T) {
	unavailable := fmt.Errorf("%w: cut", upstream.ErrUnavailable)
	for name, c := range map[string]struct {
		err   error
		got   int64
		times int
		off   bool
	}{
		"there is no place":         {upstream.ErrNoPlace, 0, 10, false},
		"others wait for its place": {errYielded, 0, 10, false},
		"it was cut on its way":     {unavailable, minProgress, maxBroken - 1, false},
		"many are cut":              {unavailable, minProgress, maxBroken, true},
		"it was refused":            {unavailable, 0, 1, true},
		"it is of other content":    {errLost, minProgress, 1, true},
	} {
		l, off := newLanes(4, -1), false
		for range c.times {
			off = l.brokeOff(time.Unix(0, 0), &request{from: 100, at: 100 + c.got}, c.err)
		}
		if off != c.off {
			t.Errorf("%s: %v", name, off)
		}
	}
}

// The rest of a part that would take long is halved when nothing else is left.
func TestASlowPartIsHalved(t *testing.T) {
	began := time.Now().Add(-10 * time.Second)
	s := schedule{total: 100 * mib, sizes: sizes{smallContent, 2 * smallContent}, fill: true, ranges: ranges{ranged: true}, lanes: newLanes(4, -1), requests: []*request{
		{from: 0, at: 40 * mib, to: 50 * mib, fill: true, began: began},
		{from: 50 * mib, at: 60 * mib, to: 100 * mib, fill: true, beside: 1, began: began},
	}}
	s.have.Add(cache.Span{To: 40 * mib})
	s.have.Add(cache.Span{From: 50 * mib, To: 60 * mib})
	r, _ := s.next(nil)
	if r == nil || r.from != 80*mib || r.to != 100*mib || r.beside != 2 || !r.fill {
		t.Fatalf("requested %+v", r)
	}
	s.requests = append(s.requests, r)
	if n, _ := s.room(s.requests[1]); n != 20*mib {
		t.Errorf("the slow one may get %d bytes more", n)
	}
	for _, r := range s.requests {
		r.began = time.Now() // nobody knows yet how fast they are
	}
	if r, _ := s.next(nil); r != nil {
		t.Errorf("requested %+v", r)
	}
}

// Where there is no place beside it, the fill asks for more at once.
func TestTheFillAloneAsksForLargeParts(t *testing.T) {
	s := schedule{total: 500 * mib, sizes: sizes{smallContent, 2 * smallContent}, fill: true, ranges: ranges{ranged: true}, lanes: newLanes(4, 500*mib)}
	for _, c := range []struct {
		rest bool
		want int64
	}{{false, segment}, {true, 64 * mib}} {
		if c.rest {
			s.lanes.rest(time.Now())
		}
		s.requests = nil
		r, _ := s.next(nil)
		if r == nil || r.to-r.from != c.want || r.beside != 0 {
			t.Fatalf("resting %t: requested %+v", c.rest, r)
		}
		s.requests = []*request{r}
		if r, _ := s.next(nil); (r == nil) != c.rest {
			t.Errorf("resting %t: beside it %+v", c.rest, r)
		}
	}
	s.lanes.off()
	s.requests = nil
	if r, _ := s.next(nil); r == nil || !r.open {
		t.Errorf("one connection: requested %+v", r)
	}
}

// TestSmallContentIsFetchedOverOneConnection whatever is allowed: what is on its
// way is lost with each connection that breaks.
func TestSmallContentIsFetchedOverOneConnection(t *testing.T) {
	for _, size := range []int64{8 * mib, 32*mib - 1, 32 * mib, 256 * mib} {
		s := schedule{total: -1, sizes: sizes{smallContent, sideBySide}, fill: true, lanes: newLanes(4, size)}
		first := s.nextFill()
		s.total, s.ranged = size, true
		s.requests = []*request{first}
		beside, large := s.nextBeside(time.Now()), size >= sideBySide
		if (beside != nil) != large || (first.to < size) != large || first.open == large {
			t.Errorf("%d bytes: first up to %d, and beside it %+v", size, first.to, beside)
		}
	}
}
