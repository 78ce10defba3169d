package proxy

import (
	"errors"
	"math"
	"strings"
)

const maxInt32 = math.MaxInt32

// span is n bytes at offset off.
type span struct{ off, n int64 }

var errUnsatisfiable = errors.New("the range is outside of the content")

// maxRanges is how many ranges of one request are served. Lazy pullers request
// a few dozen. A request with more gets the whole content.
const maxRanges = 128

// parseRange parses a Range header for content of size bytes. If it returns
// neither spans nor an error, the whole content is to be sent. That is the case
// for a malformed header and for an unknown unit (RFC 9110, section 14.2, which
// distribution-spec, "Pulling blobs", refers to), for ranges that add up to
// more than the content (section 14.2 allows it), and for empty content. It
// returns errUnsatisfiable if the header is valid, but all ranges are outside
// of the content.
func parseRange(header string, size int64) ([]span, error) {
	unit, list, ok := strings.Cut(header, "=")
	if !ok || !strings.EqualFold(unit, "bytes") || size <= 0 {
		return nil, nil
	}
	var spans []span
	var total int64
	seen := 0
	for text := range strings.SplitSeq(list, ",") {
		if text = strings.Trim(text, " \t"); text == "" {
			continue
		}
		if seen++; seen > maxRanges {
			return nil, nil
		}
		s, valid := parseSpan(text, size)
		if !valid {
			return nil, nil
		}
		if s.n > 0 {
			spans = append(spans, s)
			total += s.n
		}
	}
	switch {
	case seen == 0:
		return nil, nil
	case len(spans) == 0:
		return nil, errUnsatisfiable
	case len(spans) > 1 && total > size:
		return nil, nil // they overlap, so the whole is smaller
	}
	return spans, nil
}

// parseSpan parses one range and clips it to the content. The span is empty if
// the range is outside of it.
func parseSpan(text string, size int64) (s span, valid bool) {
	first, last, ok := strings.Cut(text, "-")
	if !ok {
		return s, false
	}
	if first == "" {
		n, ok := parseOffset(last)
		n = min(n, size)
		return span{size - n, n}, ok
	}
	from, ok := parseOffset(first)
	if !ok {
		return s, false
	}
	to := size - 1
	if last != "" {
		end, ok := parseOffset(last)
		if !ok || end < from {
			return s, false
		}
		to = min(to, end)
	}
	if from >= size {
		return s, true
	}
	return span{from, to - from + 1}, true
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

// openEnded reports whether a Range header requests all the rest. Such a client
// resumes, and waits for a download that is in progress.
func openEnded(header string) bool {
	return strings.HasSuffix(header, "-") && !strings.Contains(header, ",")
}
