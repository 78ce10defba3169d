package proxy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestRangesAreRead(t *testing.T) {
	all := []span(nil)
	for _, c := range []struct {
		name, header string
		want         []span
		err          error
	}{
		{"no range", "", all, nil},
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
		{"the start lies behind the content", "bytes=10-", nil, errUnsatisfiable},
		{"the start is larger than any number", "bytes=99999999999999999999-", nil, errUnsatisfiable},
		{"the last no bytes", "bytes=-0", nil, errUnsatisfiable},
		{"all of several lie behind the content", "bytes=10-,11-12", nil, errUnsatisfiable},
		{"malformed: another unit", "pages=1-2", all, nil},
		{"malformed: no unit", "4-", all, nil},
		{"malformed: nothing", "bytes=", all, nil},
		{"malformed: no number", "bytes=a-b", all, nil},
		{"malformed: no dash", "bytes=4", all, nil},
		{"malformed: only a dash", "bytes=-", all, nil},
		{"malformed: the end before the start", "bytes=5-4", all, nil},
		{"malformed: a sign", "bytes=+1-2", all, nil},
		{"malformed: two dashes", "bytes=1--2", all, nil},
		{"malformed: a space in a range", "bytes=1 -2", all, nil},
		{"malformed: one of several", "bytes=0-1,x", all, nil},
		{"several that are more than the whole", "bytes=0-8,1-9", all, nil},
		{"more than are answered apart", "bytes=" + strings.Repeat("0-0,", maxRanges+1), all, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := parseRange(c.header, 10)
			if !slices.Equal(got, c.want) || !errors.Is(err, c.err) {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func TestRangesOfNothingAreIgnored(t *testing.T) {
	// Some clients send bytes=0- with every request.
	for _, header := range []string{"bytes=0-", "bytes=-1", "bytes=5-"} {
		if got, err := parseRange(header, 0); len(got) > 0 || err != nil {
			t.Errorf("%s: %v, %v", header, got, err)
		}
	}
}

func TestOpenEndedRangesAreOneAndHaveNoEnd(t *testing.T) {
	for header, want := range map[string]bool{"bytes=4-": true, "bytes=4-5": false, "bytes=-4": false, "bytes=0-1,20-": false} {
		if openEnded(header) != want {
			t.Errorf("%s: %v", header, !want)
		}
	}
}

// FuzzRange holds what is read of a header against the content: no span leaves
// it, and all of them are no more than it.
func FuzzRange(f *testing.F) {
	for _, header := range []string{"bytes=0-", "bytes=2-5", "bytes=-3", "bytes=0-1,4-5,-1", "bytes=99999999999999999999-", "bytes=-0", "bytes=5-4", "bytes=,,", "Bytes=\t1-2 ,", "x=1-2"} {
		f.Add(header, int64(10))
	}
	f.Add("bytes=0-9223372036854775807", int64(1)<<62)
	f.Fuzz(func(t *testing.T, header string, size int64) {
		spans, err := parseRange(header, size)
		if err != nil && len(spans) > 0 {
			t.Fatalf("%v and %v", spans, err)
		}
		var total int64
		for _, s := range spans {
			if s.off < 0 || s.n <= 0 || s.off > size-s.n {
				t.Fatalf("%v of %d bytes", s, size)
			}
			total += s.n
		}
		if len(spans) > maxRanges || total > size && size >= 0 {
			t.Fatalf("%d spans with %d bytes of %d", len(spans), total, size)
		}
		// Read back, each span is itself.
		for _, s := range spans {
			again, err := parseRange(fmt.Sprintf("bytes=%d-%d", s.off, s.off+s.n-1), size)
			if err != nil || !slices.Equal(again, []span{s}) {
				t.Fatalf("%v is read back as %v, %v", s, again, err)
			}
		}
	})
}
