package flight

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/entrepot/entrepot/cache"
)

// simulation has a schedule's requests answered piece by piece, without any
// bytes.
type simulation struct {
	t        *testing.T
	s        schedule
	rand     *rand.Rand
	total    int64
	waits    []wait
	received int64 // that were not there before
	closed   int   // requests that had more to send
	most     int   // requests under way
	beside   int   // requests that may be under way beside the fill
	log      []string
}

func newSimulation(t *testing.T, seed uint64, total int64) *simulation {
	return &simulation{t: t, s: schedule{total: -1, sizes: sizes{smallContent, 2 * smallContent}}, rand: rand.New(rand.NewPCG(seed, 19)), total: total}
}

// start starts what is to be requested.
func (m *simulation) start() {
	for {
		r, _ := m.s.next(m.waits)
		if r == nil {
			return
		}
		m.log = append(m.log, fmt.Sprintf("%d-%d fill %v open %v", r.from, r.to, r.fill, r.open))
		m.s.requests = append(m.s.requests, r)
		m.most = max(m.most, len(m.s.requests))
		if len(m.s.requests) > maxRequests+m.beside {
			m.t.Fatalf("%d requests: %v", len(m.s.requests), m.log)
		}
		if m.s.total < 0 { // the first answer tells the size
			m.s.sized(size{total: m.total})
		}
	}
}

// deliver has a request receive something.
func (m *simulation) deliver() {
	r := m.s.requests[m.rand.IntN(len(m.s.requests))]
	n, twice := m.s.room(r)
	switch {
	case twice > 0:
		r.at += twice
		m.s.twice += twice
	case n == 0:
		m.closed++
		m.s.remove(r)
		return
	default:
		n = min(n, 1+m.rand.Int64N(1<<20))
		span := cache.Span{From: r.at, To: r.at + n}
		if missing := m.s.have.Missing(span); missing != span {
			m.t.Fatalf("%v is received, of which only %v is missing: %v", span, missing, m.log)
		}
		m.s.have.Add(span)
		r.at += n
		m.received += n
	}
	if r.at >= r.to {
		m.s.remove(r)
	}
}

// isServed says whether all readers have what they need.
func (m *simulation) isServed() bool {
	for _, w := range m.waits {
		for _, span := range w.spans {
			span.To = min(span.To, m.total)
			if m.s.have.Missing(span).Len() > 0 {
				return false
			}
		}
	}
	return !m.s.fill || m.s.isWhole()
}

// run goes on until everybody has what is needed.
func (m *simulation) run() {
	for !m.isServed() {
		m.start()
		if len(m.s.requests) == 0 {
			m.t.Fatalf("nobody is served any more: have %v, waits %v, %v", m.s.have, m.waits, m.log)
		}
		m.deliver()
	}
}

func (m *simulation) look(spans ...cache.Span) {
	m.waits = append(m.waits, wait{spans: spans})
	m.s.ask(spans)
}

func (m *simulation) whole() { m.s.insist() }

func (m *simulation) toEnd(off int64) {
	m.waits = append(m.waits, wait{spans: []cache.Span{{From: off, To: math.MaxInt64}}, toEnd: true, patient: m.s.fill})
	m.s.insist()
}

const mib = 1 << 20

// Whatever readers ask for and in whatever order it comes: each byte is received
// once, at most two requests are under way, and everybody is served.
func TestEachByteIsRequestedOnceWhoeverAsks(t *testing.T) {
	for seed := range uint64(400) {
		m := newSimulation(t, seed, 1+rand.New(rand.NewPCG(seed, 1)).Int64N(100*mib))
		for range 1 + m.rand.IntN(8) {
			switch m.rand.IntN(6) {
			case 0:
				m.whole()
			case 1:
				m.toEnd(m.rand.Int64N(m.total))
			default:
				var spans []cache.Span
				for range 1 + m.rand.IntN(1+m.rand.IntN(40)) {
					from := m.rand.Int64N(m.total)
					spans = append(spans, cache.Span{From: from, To: min(m.total, from+1+m.rand.Int64N(1+m.total/int64(1+m.rand.IntN(50))))})
				}
				m.look(spans...)
			}
			for range m.rand.IntN(100) {
				if m.start(); len(m.s.requests) > 0 {
					m.deliver()
				}
			}
		}
		m.run()
		if m.received != m.s.have.Len() || m.s.twice > m.total/passOver {
			t.Errorf("seed %d: %d bytes were received, %d of them again, for %d", seed, m.received, m.s.twice, m.s.have.Len())
		}
	}
}

// The sequences of real clients: how much is fetched, and whether a connection
// is closed that had more to send, of which nobody knows how much was on its
// way.
func TestWhatClientsReadIsWhatIsFetched(t *testing.T) {
	const size = 367_001_600
	chunks := func(m *simulation, length int64, nodes int) {
		for from := int64(0); from < size; from += length {
			for range nodes {
				m.look(cache.Span{From: from, To: min(from+length, size)})
			}
			for range 30 {
				m.start()
				m.deliver()
			}
		}
	}
	holes := func(m *simulation, read int64) {
		m.look(cache.Span{From: m.total - 200_000, To: m.total - 100_000}, cache.Span{From: m.total - 100_000, To: m.total})
		var spans []cache.Span
		for i := range int64(600) {
			from := i * (m.total - 300_000) / 600
			spans = append(spans, cache.Span{From: from, To: from + read/600})
		}
		m.look(spans...)
	}
	for name, c := range map[string]struct {
		total  int64
		read   func(m *simulation)
		want   int64
		closed int
	}{
		"F6 SOCI's parallel pull on one node": {size, func(m *simulation) { m.look(cache.Span{From: 0, To: 2}); chunks(m, 16*mib, 1) }, size, 0},
		"F6 the same on three nodes":          {size, func(m *simulation) { m.look(cache.Span{From: 0, To: 2}); chunks(m, 16*mib, 3) }, size, 0},
		"F1 Ollama's parts after a GET":       {size, func(m *simulation) { m.whole(); m.start(); chunks(m, 100_000_000, 5) }, size, 1},
		"the first range is to the end":       {size, func(m *simulation) { m.toEnd(100_000_000) }, size, 0},
		"F4 podman reads a third":             {43_800_000, func(m *simulation) { holes(m, 14_700_000) }, 14_700_000 * 5 / 4, 0},
		"F16 gguf-parser reads the start":     {68_200_000, func(m *simulation) { m.look(cache.Span{From: 0, To: mib}); m.look(cache.Span{From: mib, To: 4 * mib}) }, 4 * mib, 0},
		"a small blob comes whole":            {3 * mib, func(m *simulation) { m.look(cache.Span{From: mib, To: mib + 10}) }, 3 * mib, 0},
		"after three fifths all comes":        {10_000_000, func(m *simulation) { m.look(cache.Span{From: 0, To: 6_000_001}) }, 10_000_000, 0},
		"before that only what was read":      {10_000_000, func(m *simulation) { m.look(cache.Span{From: 0, To: 5_999_900}) }, 5_999_900, 0},
	} {
		t.Run(name, func(t *testing.T) {
			m := newSimulation(t, 1, c.total)
			c.read(m)
			m.run()
			if got := m.received + m.s.twice; got > c.want || got < c.want*4/5 || m.closed > c.closed {
				t.Errorf("%d bytes were received, want %d; %d connections were closed, want %d: %v", got, c.want, m.closed, c.closed, m.log)
			}
		})
	}
}

// With several readers, each is served in turn.
func TestReadersAreServedInTurn(t *testing.T) {
	s := schedule{total: 1 << 40, have: cache.Spans{}}
	var waits []wait
	for i := range int64(3) {
		waits = append(waits, wait{spans: []cache.Span{{From: i << 30, To: i<<30 + 200*mib}}})
	}
	var order []int64
	for range 6 {
		r, served := s.next(waits)
		order = append(order, r.from>>30)
		s.have.Add(cache.Span{From: r.from, To: r.to})
		waits = append(slices.Delete(slices.Clone(waits), served, served+1), waits[served])
	}
	if !slices.Equal(order, []int64{0, 1, 2, 0, 1, 2}) {
		t.Errorf("served %v", order)
	}
}

// What another request is at already is not part of the next one.
func TestARequestEndsWhereAnotherIs(t *testing.T) {
	s := schedule{total: 100 * mib, requests: []*request{{from: 5 * mib, at: 6 * mib, to: 7 * mib}}}
	r, _ := s.next([]wait{{spans: []cache.Span{{From: 4 * mib, To: 7 * mib}}}})
	if r == nil || r.from != 4*mib || r.to != 6*mib {
		t.Errorf("requested %+v", r)
	}
}
