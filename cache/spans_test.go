package cache_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/entrepot/entrepot/cache"
)

// content is so short that spans often touch.
const bitmapSize = 40

// bitmap is what Spans has to agree with: one entry for each byte.
type bitmap [bitmapSize]bool

func (b *bitmap) set(s cache.Span, to bool) {
	for i := s.From; i < s.To; i++ {
		b[i] = to
	}
}

// spans are the runs of the bytes that are there.
func (b *bitmap) spans() (all cache.Spans) {
	for i := int64(0); i < bitmapSize; i++ {
		from := i
		for i < bitmapSize && b[i] {
			i++
		}
		if i > from {
			all = append(all, cache.Span{From: from, To: i})
		}
	}
	return all
}

func (b *bitmap) end(off int64) int64 {
	for off < bitmapSize && b[off] {
		off++
	}
	return off
}

func (b *bitmap) missing(of cache.Span) cache.Span {
	from := min(b.end(of.From), max(of.From, of.To))
	to := from
	for to < of.To && !b[to] {
		to++
	}
	return cache.Span{From: from, To: to}
}

// agree fails unless the spans are those of the bitmap, whatever is asked.
func agree(t *testing.T, s cache.Spans, b *bitmap) {
	t.Helper()
	want := b.spans()
	if !slices.Equal(s, want) {
		t.Fatalf("%v, want %v", s, want)
	}
	n := int64(0)
	for off := range int64(bitmapSize) {
		if b[off] {
			n++
		}
		if got := s.End(off); got != b.end(off) {
			t.Fatalf("End(%d) of %v = %d, want %d", off, s, got, b.end(off))
		}
		i := slices.IndexFunc(want, func(s cache.Span) bool { return s.To > off })
		next, ok := s.Next(off)
		if ok != (i >= 0) || ok && next != want[i] {
			t.Fatalf("Next(%d) of %v = %v, %t", off, s, next, ok)
		}
		for to := off; to <= bitmapSize; to++ {
			of := cache.Span{From: off, To: to}
			got, want := s.Missing(of), b.missing(of)
			if got.Len() != want.Len() || want.Len() > 0 && got != want {
				t.Fatalf("Missing(%v) of %v = %v, want %v", of, s, got, want)
			}
		}
	}
	if s.Len() != n {
		t.Fatalf("Len of %v = %d, want %d", s, s.Len(), n)
	}
}

// apply does what each pair of bytes says: the lowest bit whether a span is
// added or removed, the rest which.
func apply(t *testing.T, steps []byte) {
	t.Helper()
	var s cache.Spans
	var b bitmap
	for ; len(steps) >= 2; steps = steps[2:] {
		add := steps[0]&1 == 0
		span := cache.Span{From: int64(steps[0]/2) % bitmapSize}
		span.To = min(span.From+int64(steps[1]%16)-2, bitmapSize) // now and then none
		before := slices.Clone(s)
		if add {
			s.Add(span)
		} else {
			s.Remove(span)
		}
		b.set(span, add)
		if want := b.spans(); !slices.Equal(s, want) {
			t.Fatalf("%v with %v (added %t) is %v, want %v", before, span, add, s, want)
		}
	}
	agree(t, s, &b)
}

func TestSpansAgreeWithABitmap(t *testing.T) {
	random := rand.NewChaCha8([32]byte{1})
	for range 3000 {
		steps := make([]byte, 2+random.Uint64()%60)
		_, _ = random.Read(steps) // never fails
		apply(t, steps)
	}
}

func TestSpansOfNothing(t *testing.T) {
	var s cache.Spans
	s.Add(cache.Span{From: 5, To: 5})
	s.Remove(cache.Span{From: 0, To: 10})
	agree(t, s, &bitmap{})
	if got := s.Missing(cache.Span{From: 3, To: 9}); got != (cache.Span{From: 3, To: 9}) {
		t.Errorf("Missing = %v", got)
	}
}

func TestExtendingTheLastSpanAllocatesNothing(t *testing.T) {
	s := cache.Spans{{From: 0, To: 10}, {From: 20, To: 30}}
	if n := testing.AllocsPerRun(100, func() {
		end := s[len(s)-1].To
		s.Add(cache.Span{From: end, To: end + 7})
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzSpans(f *testing.F) {
	f.Add([]byte{0, 10, 20, 10, 10, 10, 5, 4})
	f.Add([]byte{0, 15, 4, 5, 5, 5})
	f.Fuzz(apply)
}
