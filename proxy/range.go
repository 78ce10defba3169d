package proxy

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
)

const maxInt32 = math.MaxInt32

// What a GET of a blob with a Range gets. The rules are those of RFC 9110; where
// it leaves a choice, no answer to a piece may be mistaken: clients take a 200
// to a later piece for the piece (F3), so what was once answered with 206 is
// never answered with 200. TestWhatARangeGets has a row for each.
//
//	the Range                             the answer
//	If-Range does not match               200, the whole: what the client has is of other content (13.1.5)
//	of another unit than bytes            200, the whole: such a Range MUST be ignored (14.2), and is never a 206
//	of an empty blob                      200, nothing: no part of it can be named (14.4)
//	malformed, or in several fields       400: a server MAY ignore or reject it (14.2), and only the latter is safe
//	of more than maxRanges ranges         400: lazy pullers ask for less at once after that, and after nothing else (F4, F5)
//	of a header above maxBlobHeader       400, for the same reason
//	outside of the blob, or backwards     416 with the size (15.5.17, and what the distribution-spec's own suite wants)
//	the last no bytes                     416: there is no such range (14.1.2, F87)
//	one, or one of several is inside      206 with Content-Range
//	several                               206, each in a part of its own and in the order of the request: clients count the parts (F4)
//	several, of more bytes than the blob  206, those that overlap in one part (15.3.7.2): no request gets more than the blob
//	one of a blob whose size nobody told  as above, once all of it has come: before that nobody can tell its size
//	one that the upstream can't send      206, once the download has come so far (F38)
//
// A HEAD has no ranges (14.2), and If-None-Match is evaluated first (13.2.2).

// maxRanges is how many ranges one request may have. Clients of zstd:chunked
// images ask for 1,024 at once (F4).
const maxRanges = 1024

// byteRange is a requested range: from first to last, which is math.MaxInt64
// where there is no end. Where first is negative, it is the last bytes.
type byteRange struct{ first, last int64 }

// span is n bytes at offset off.
type span struct{ off, n int64 }

var (
	errMalformedRange = errors.New("the Range header is malformed")
	errManyRanges     = fmt.Errorf("the Range header has more than %d ranges", maxRanges)
)

// requestedRanges parses the Range header of a GET. If it returns neither ranges
// nor an error, the whole content is to be sent.
func requestedRanges(header http.Header, etag string) ([]byteRange, error) {
	fields := header["Range"]
	if len(fields) == 0 || len(fields) == 1 && fields[0] == "" {
		return nil, nil
	}
	if condition := header.Get("If-Range"); condition != "" && condition != etag {
		return nil, nil
	}
	if len(fields) > 1 {
		return nil, errMalformedRange
	}
	return parseRanges(fields[0])
}

// parseRanges parses a Range header (RFC 9110, section 14.1.1, which
// distribution-spec, "Pulling blobs", refers to). For another unit it returns
// nothing.
func parseRanges(header string) ([]byteRange, error) {
	unit, list, ok := strings.Cut(header, "=")
	if !ok || !httpguts.ValidHeaderFieldName(unit) { // both are tokens
		return nil, errMalformedRange
	}
	if !strings.EqualFold(unit, "bytes") {
		return nil, nil
	}
	ranges := make([]byteRange, 0, min(1+strings.Count(list, ","), maxRanges))
	for text := range strings.SplitSeq(list, ",") {
		if text = strings.Trim(text, " \t"); text == "" {
			continue
		}
		r, ok := parseByteRange(text)
		switch {
		case !ok:
			return nil, errMalformedRange
		case len(ranges) == maxRanges:
			return nil, errManyRanges
		}
		ranges = append(ranges, r)
	}
	if len(ranges) == 0 {
		return nil, errMalformedRange
	}
	return ranges, nil
}

func parseByteRange(text string) (r byteRange, ok bool) {
	first, last, ok := strings.Cut(text, "-")
	if !ok {
		return r, false
	}
	r = byteRange{-1, math.MaxInt64}
	if first != "" {
		if r.first, ok = parseOffset(first); !ok || last == "" {
			return r, ok
		}
	}
	r.last, ok = parseOffset(last)
	return r, ok // one that ends before it begins is outside of any blob
}

// parseOffset parses a string of digits. A number that is too large becomes a
// very large one.
func parseOffset(s string) (n int64, ok bool) {
	for i := range len(s) {
		c := s[i]
		if c < '0' || c > '9' {
			return 0, false
		}
		if n > (math.MaxInt64-9)/10 {
			n = math.MaxInt64
			continue
		}
		n = n*10 + int64(c-'0')
	}
	return n, s != ""
}

// openEnded reports whether all the rest is requested, and nothing else. Such a
// client resumes, and waits for a download that is in progress.
func openEnded(ranges []byteRange) bool {
	return len(ranges) == 1 && ranges[0].first >= 0 && ranges[0].last == math.MaxInt64
}

// of clips the range to content of size bytes. The span is empty if the range is
// outside of it.
func (r byteRange) of(size int64) span {
	switch {
	case r.first < 0:
		n := min(r.last, size)
		return span{size - n, n}
	case r.first >= size:
		return span{size, 0}
	}
	return span{r.first, min(r.last, size-1) - r.first + 1}
}

// spansOf returns the parts of content of size bytes that are requested. Together
// they are no more than the content.
func spansOf(ranges []byteRange, size int64) []span {
	spans := make([]span, 0, len(ranges))
	left, surplus := size, false
	for _, r := range ranges {
		if s := r.of(size); s.n > 0 {
			spans = append(spans, s)
			surplus = surplus || s.n > left
			left -= min(s.n, left)
		}
	}
	if surplus {
		return coalesce(spans)
	}
	return spans
}

// coalesce joins the spans that overlap. A joined one has the place of the first
// of them.
func coalesce(spans []span) []span {
	type placed struct {
		span
		place int
	}
	all := make([]placed, len(spans))
	for i, s := range spans {
		all[i] = placed{s, i}
	}
	slices.SortFunc(all, func(a, b placed) int { return cmp.Compare(a.off, b.off) })
	joined := all[:1]
	for _, s := range all[1:] {
		last := &joined[len(joined)-1]
		if end := last.off + last.n; s.off < end {
			last.n = max(end, s.off+s.n) - last.off
			last.place = min(last.place, s.place)
			continue
		}
		joined = append(joined, s)
	}
	slices.SortFunc(joined, func(a, b placed) int { return cmp.Compare(a.place, b.place) })
	spans = spans[:len(joined)]
	for i, s := range joined {
		spans[i] = s.span
	}
	return spans
}
