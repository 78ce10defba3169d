package cache

import (
	"slices"
)

// A Span is the bytes of content from From up to To, which is not part of it.
type Span struct{ From, To int64 }

// Len is the number of bytes of the span.
func (s Span) Len() int64 { return max(s.To-s.From, 0) }

// Spans are the parts of content that are there: sorted, not empty, and neither
// overlapping nor touching each other. The zero value has nothing. Add and
// Remove change it in place, so copies are made with slices.Clone.
type Spans []Span

// Add adds a span. To extend the last one costs nothing.
func (s *Spans) Add(span Span) {
	if span.Len() == 0 {
		return
	}
	all := *s
	first := s.from(span.From)
	if first > 0 && all[first-1].To == span.From {
		first--
	}
	last := first // one after those that are joined
	for last < len(all) && all[last].From <= span.To {
		span.From = min(span.From, all[last].From)
		span.To = max(span.To, all[last].To)
		last++
	}
	*s = slices.Replace(all, first, last, span)
}

// Remove removes a span.
func (s *Spans) Remove(span Span) {
	if span.Len() == 0 {
		return
	}
	all := *s
	first := s.from(span.From)
	last := first
	var rest []Span
	for last < len(all) && all[last].From < span.To {
		if left := (Span{all[last].From, span.From}); left.Len() > 0 {
			rest = append(rest, left)
		}
		if right := (Span{span.To, all[last].To}); right.Len() > 0 {
			rest = append(rest, right)
		}
		last++
	}
	*s = slices.Replace(all, first, last, rest...)
}

// End is the end of the span that has the byte at off, or off if none has.
func (s Spans) End(off int64) int64 {
	if i := s.from(off); i < len(s) && s[i].From <= off {
		return s[i].To
	}
	return off
}

// Next is the first span that ends after off, or false if there is none.
func (s Spans) Next(off int64) (Span, bool) {
	i := s.from(off)
	if i == len(s) {
		return Span{}, false
	}
	return s[i], true
}

// Missing is the first part of a span that is not there; it is empty if all of
// it is.
func (s Spans) Missing(of Span) Span {
	of.From = s.End(of.From)
	if next, ok := s.Next(of.From); ok {
		of.To = min(of.To, next.From)
	}
	of.To = max(of.From, of.To)
	return of
}

// Len is the number of bytes that are there.
func (s Spans) Len() (n int64) {
	for _, span := range s {
		n += span.Len()
	}
	return n
}

// from is the index of the first span that ends after off.
func (s Spans) from(off int64) int {
	i, _ := slices.BinarySearchFunc(s, off, func(span Span, off int64) int {
		if span.To <= off {
			return -1
		}
		return 1
	})
	return i
}
