package retention_test

import (
	"context"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/mirror/mirrortest"
	"github.com/entrepot/entrepot/proxy/pull"
	"github.com/entrepot/entrepot/proxy/retention"
)

// errOutside means that none of the ranges is inside of the blob (416).
var errOutside = errors.New("the ranges are outside of the blob")

// rangeRequest is a request for ranges, as the proxy makes it of a header.
type rangeRequest struct {
	spans  []cache.Span // may reach past the end
	toEnd  bool         // bytes=5-
	suffix int64        // bytes=-5
}

func newRangeRequest(random *rand.Rand, size int64) (r rangeRequest) {
	at := func() int64 { return random.Int64N(size) }
	some := func() cache.Span {
		from := at()
		return cache.Span{From: from, To: from + 1 + random.Int64N(size-from)}
	}
	switch n := random.IntN(20); {
	case n < 6:
		r.spans = []cache.Span{some()}
	case n < 8: // a header
		r.spans = []cache.Span{{To: 1 + random.Int64N(min(size, 100))}}
	case n < 13: // in any order, of less than the whole
		left := size
		for range 2 + random.IntN(5) {
			if s := some(); s.Len() <= left {
				r.spans = append(r.spans, s)
				left -= s.Len()
			}
		}
	case n < 14: // of the whole
		cut := at()
		r.spans = slices.DeleteFunc([]cache.Span{{From: cut, To: size}, {To: cut}}, func(s cache.Span) bool { return s.Len() == 0 })
		if random.IntN(2) == 0 {
			slices.Reverse(r.spans)
		}
	case n < 16:
		r.suffix = 1 + at()
	case n < 18:
		r.spans, r.toEnd = []cache.Span{{From: at(), To: math.MaxInt64}}, true
	case n < 19:
		r.spans = []cache.Span{{From: size + random.Int64N(10), To: size + 20}}
	default:
		r.spans = []cache.Span{{From: at(), To: size + 1 + random.Int64N(100)}}
	}
	if len(r.spans) == 0 && r.suffix == 0 {
		r.spans = []cache.Span{some()}
	}
	return r
}

// of returns the ranges of a blob of size bytes, as the proxy answers them.
func (r rangeRequest) of(size int64) (all []cache.Span) {
	if r.suffix > 0 {
		return []cache.Span{{From: max(0, size-r.suffix), To: size}}
	}
	for _, s := range r.spans {
		if s.To = min(s.To, size); s.Len() > 0 {
			all = append(all, s)
		}
	}
	return all
}

func (r rangeRequest) want() pull.Want {
	if r.toEnd && r.spans[0].From == 0 {
		return pull.Want{}
	}
	return pull.Want{ToEnd: r.toEnd, Parts: func(size int64) []pull.Span {
		switch {
		case size >= 0:
			return r.of(size)
		case r.suffix > 0:
			return nil
		}
		return r.spans
	}}
}

// answer is what a client got: the spans, and what came of them.
type answer struct {
	spans []cache.Span
	got   [][]byte
}

// all is what came.
func (a answer) all() (all cache.Spans) {
	for i, got := range a.got {
		all.Add(cache.Span{From: a.spans[i].From, To: a.spans[i].From + int64(len(got))})
	}
	return all
}

// readRanges reads ranges as the proxy does. The client leaves in that part, or
// never if it is -1, after so many bytes of it.
func (m *model) readRanges(repo retention.Repository, d retention.Digest, r rangeRequest, part, leaves int) (a answer, err error) {
	ctx := context.Background()
	b, err := m.Blob(ctx, repo, d, r.want())
	if err != nil {
		return a, err
	}
	defer b.Close()
	size := b.Size()
	if size < 0 {
		if size, err = b.WriteRange(ctx, io.Discard, 0, -1); err != nil {
			return a, err
		}
	}
	if truth := int64(len(m.up.bodies[d].Body)); size != truth {
		m.fail("%s has %d bytes, and %d are told", d, truth, size)
		return a, nil
	}
	a.spans = r.of(size)
	if len(a.spans) == 0 {
		return a, errOutside
	}
	for i, span := range a.spans {
		p, n := &pipe{}, span.Len()
		if i == part {
			p.enough = leaves
		}
		if r.toEnd {
			n = -1
		}
		written, err := b.WriteRange(ctx, p, span.From, n)
		a.got = append(a.got, p.got)
		switch {
		case written != int64(len(p.got)):
			m.fail("%s: %d bytes came, and %d were counted", d, len(p.got), written)
		case err != nil:
			return a, err
		case written != span.Len():
			m.fail("%s: %d bytes of %v came", d, written, span)
		}
	}
	return a, nil
}

// checkAnswer checks that bytes are wrong only where the upstream sent them so,
// and never all of the content.
func (m *model) checkAnswer(repo retention.Repository, d retention.Digest, a answer) {
	truth := m.up.bodies[d].Body
	asSent := true
	for i, got := range a.got {
		if at := m.up.blobs.wrong(d, truth, got, a.spans[i].From); at >= 0 {
			m.fail("%s: of %v, the byte at %d is wrong", d, a.spans[i], at)
		}
		asSent = asSent && string(got) == string(truth[a.spans[i].From:][:len(got)])
	}
	all := a.all()
	if !asSent && all.Len() == int64(len(truth)) {
		m.fail("%s: a client got the whole of wrong content, as %v", d, a.spans)
	}
	if _, held := m.up.held[repo][d]; !held && all.Len() > 0 {
		m.fail("%d bytes of %s were served for %s, which never had it", all.Len(), d, repo)
	}
}

// anyBlob is a blob and a repository that may not have it.
func (m *model) anyBlob() (retention.Repository, retention.Digest) {
	repo, from := choose(m.random, m.up.repositories()), choose(m.random, m.up.repositories())
	d := choose(m.random, sorted(m.up.held[from]))
	switch recent := m.up.shelf[from]; m.random.IntN(3) {
	case 0:
		if len(recent) > 0 {
			d = recent[len(recent)-1-m.random.IntN(min(6, len(recent)))].Digest
		}
	case 1:
		if kept := m.kept(); len(kept) > 0 {
			d = choose(m.random, kept)
		}
	}
	if _, held := m.up.held[repo][d]; !held && m.random.IntN(3) > 0 {
		repo = from
	}
	return repo, d
}

// askRanges requests ranges of a blob.
func (m *model) askRanges(repo retention.Repository, d retention.Digest) errand {
	size := int64(len(m.up.bodies[d].Body))
	if size == 0 {
		return m.listTags()
	}
	r, part, leaves := newRangeRequest(m.random, size), -1, 0
	if m.random.IntN(5) == 0 {
		part, leaves = m.random.IntN(2), 1+m.random.IntN(int(size))
	}
	m.note("ranges %v of %s of %s, %d bytes, leaves after %d of %d", r, mirrortest.Short(d.String()), repo, size, leaves, part)
	must := m.mustHave(repo, d, r.of(size))
	excused := m.excuses()
	var a answer
	var err error
	return errand{func() { a, err = m.readRanges(repo, d, r, part, leaves) }, func() {
		m.checkAnswer(repo, d, a)
		m.counts.looks++
		if must && err == nil {
			m.counts.served++
		}
		m.hasRead(d, a.all())
		if errors.Is(err, errLeft) {
			err = nil
		}
		if errors.Is(err, errOutside) && len(r.of(size)) == 0 {
			return
		}
		if must && err != nil && !excused() && !m.up.blobs.hasLied(d) {
			m.fail("%v of %s was read, and is not served with the upstream %s: %v", r.of(size), d, m.up.mood(), err)
		}
		m.judgeBlob(repo, d, err, m.began)
	}}
}
