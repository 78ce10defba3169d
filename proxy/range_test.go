package proxy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestRangesAreRead(t *testing.T) {
	whole := []span(nil)
	for _, c := range []struct {
		name, header string
		want         []span // of 10 bytes
		err          error
	}{
		{"W20: from an offset on", "bytes=4-", []span{{4, 6}}, nil},
		{"W20: from an offset to another", "bytes=2-5", []span{{2, 4}}, nil},
		{"W20: the last bytes", "bytes=-3", []span{{7, 3}}, nil},
		{"W20: several", "bytes=0-1, 4-5,-1", []span{{0, 2}, {4, 2}, {9, 1}}, nil},
		{"W23: the first two bytes", "bytes=0-1", []span{{0, 2}}, nil},
		{"the whole", "bytes=0-9", []span{{0, 10}}, nil},
		{"one byte", "bytes=9-9", []span{{9, 1}}, nil},
		{"the end lies behind the content", "bytes=8-100", []span{{8, 2}}, nil},
		{"the end is larger than any number", "bytes=8-99999999999999999999", []span{{8, 2}}, nil},
		{"more last bytes than there are", "bytes=-99999999999999999999", []span{{0, 10}}, nil},
		{"the unit in capitals", "BYTES=4-", []span{{4, 6}}, nil},
		{"empty elements of the list", "bytes=,4-,", []span{{4, 6}}, nil},
		{"one of several lies behind the content", "bytes=0-1,20-", []span{{0, 2}}, nil},
		{"not in order", "bytes=8-9,0-1,4-5", []span{{8, 2}, {0, 2}, {4, 2}}, nil},
		{"some that overlap", "bytes=0-3,2-5", []span{{0, 4}, {2, 4}}, nil},
		{"some that touch", "bytes=0-4,5-9", []span{{0, 5}, {5, 5}}, nil},
		{"more than the whole, and two overlap", "bytes=9-9,4-8,0-5,0-0", []span{{9, 1}, {0, 9}}, nil},
		{"more than the whole, and one is inside of another", "bytes=9-9,0-8,1-3", []span{{9, 1}, {0, 9}}, nil},
		{"the whole, many times", "bytes=0-" + strings.Repeat(",0-", maxRanges-1), []span{{0, 10}}, nil},
		{"F4: as many as there may be", "bytes=0-0" + strings.Repeat(",20-", maxRanges-1), []span{{0, 1}}, nil},
		{"the start lies behind the content", "bytes=10-", []span{}, nil},
		{"the start is larger than any number", "bytes=99999999999999999999-", []span{}, nil},
		{"F87: the last no bytes", "bytes=-0", []span{}, nil},
		{"all of several lie behind the content", "bytes=10-,11-12", []span{}, nil},
		{"F87: another unit", "pages=1-2", whole, nil},
		{"another unit, in its own words", "pages=one;two", whole, nil},
		{"malformed: no unit", "4-", nil, errMalformedRange},
		{"malformed: an empty unit", "=4-", nil, errMalformedRange},
		{"malformed: a space behind the unit", "bytes =4-", nil, errMalformedRange},
		{"malformed: another word for =", "bytes 4-", nil, errMalformedRange},
		{"malformed: nothing", "bytes=", nil, errMalformedRange},
		{"malformed: nothing, many times", "bytes=" + strings.Repeat(",", 2*maxRanges), nil, errMalformedRange},
		{"malformed: no number", "bytes=a-b", nil, errMalformedRange},
		{"malformed: no dash", "bytes=4", nil, errMalformedRange},
		{"malformed: only a dash", "bytes=-", nil, errMalformedRange},
		{"the end before the start", "bytes=5-4", []span{}, nil},
		{"malformed: a sign", "bytes=+1-2", nil, errMalformedRange},
		{"malformed: two dashes", "bytes=1--2", nil, errMalformedRange},
		{"malformed: a space in a range", "bytes=1 -2", nil, errMalformedRange},
		{"malformed: one of several", "bytes=0-1,x", nil, errMalformedRange},
		{"F4: more than there may be", "bytes=0-0" + strings.Repeat(",0-0", maxRanges), nil, errManyRanges},
	} {
		t.Run(c.name, func(t *testing.T) {
			ranges, err := parseRanges(c.header)
			var got []span
			if ranges != nil {
				got = spansOf(ranges, 10)
			}
			if !slices.Equal(got, c.want) || (got == nil) != (c.want == nil) || !errors.Is(err, c.err) {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func TestOpenEndedRangesAreOneAndHaveNoEnd(t *testing.T) {
	for header, want := range map[string]bool{"bytes=4-": true, "bytes=,4-": true, "bytes=4-5": false, "bytes=-4": false, "bytes=-99999999999999999999": false, "bytes=0-1,20-": false} {
		ranges, err := parseRanges(header)
		if err != nil || openEnded(ranges) != want {
			t.Errorf("%s: %v, %v", header, !want, err)
		}
	}
}

// FuzzRange holds what is read of a header against the content: no span leaves
// it, all of them are no more than it, and they are what was requested.
func FuzzRange(f *testing.F) {
	for _, header := range []string{
		"bytes=0-", "bytes=2-5", "bytes=-3", "bytes=0-1,4-5,-1", "bytes=99999999999999999999-", "bytes=-0", "bytes=5-4", "bytes=,,", "Bytes=\t1-2 ,", "x=1-2",
		"bytes=0-5,3-9,-2", "bytes=8-9,0-1,4-5", "bytes=5-9,0-8,1-2,2-3", "bytes 0-1", "=1-2", strideRanges(maxRanges+1, 3, 5),
	} {
		f.Add(header, int64(10))
	}
	f.Add("bytes=0-9223372036854775807", int64(1)<<62)
	f.Add("bytes=0-,1-,-9223372036854775807", int64(1)<<62)
	f.Fuzz(func(t *testing.T, header string, size int64) {
		ranges, err := parseRanges(header)
		if err != nil && len(ranges) > 0 {
			t.Fatalf("%v and %v", ranges, err)
		}
		if len(ranges) > maxRanges {
			t.Fatalf("%d ranges", len(ranges))
		}
		if size < 1 { // of an empty blob there is nothing, and one without a size is waited for
			return
		}
		holdSpans(t, ranges, size)
		holdBytes(t, ranges, size%256+1)
	})
}

// holdSpans holds the spans of content of size bytes against the ranges.
func holdSpans(t *testing.T, ranges []byteRange, size int64) {
	t.Helper()
	spans := spansOf(ranges, size)
	left := size
	for _, s := range spans {
		if s.off < 0 || s.n <= 0 || s.off > size-s.n || s.n > left {
			t.Fatalf("%v of %v, of %d bytes", s, spans, size)
		}
		left -= s.n
		// Read back, each span is itself.
		again, err := parseRanges(fmt.Sprintf("bytes=%d-%d", s.off, s.off+s.n-1))
		if err != nil || !slices.Equal(spansOf(again, size), []span{s}) {
			t.Fatalf("%v is read back as %v, %v", s, again, err)
		}
	}
	var asked []span
	total := float64(0)
	for _, r := range ranges {
		if s := r.of(size); s.n > 0 {
			asked = append(asked, s)
			total += float64(s.n)
		}
	}
	switch {
	case total <= float64(size)/2 && !slices.Equal(spans, asked):
		t.Fatalf("%v is answered with %v", asked, spans)
	case len(asked) > 0 && (spans[0].off > asked[0].off || spans[0].off+spans[0].n < asked[0].off+asked[0].n):
		t.Fatalf("the first of %v is not in the first of %v", asked, spans)
	}
}

// holdBytes holds the bytes of the spans of small content against those that
// are requested.
func holdBytes(t *testing.T, ranges []byteRange, size int64) {
	t.Helper()
	holdSpans(t, ranges, size)
	var asked, got [257]bool
	for _, r := range ranges {
		for i := range size {
			asked[i] = asked[i] || r.first < 0 && i >= size-r.last || r.first >= 0 && i >= r.first && i <= r.last
		}
	}
	for _, s := range spansOf(ranges, size) {
		for i := range s.n {
			got[s.off+i] = true
		}
	}
	if asked != got {
		t.Fatalf("%v of %d bytes: %v", ranges, size, spansOf(ranges, size))
	}
}
