package proxy

import (
	"errors"
	"math"
	"strings"
)

const maxInt32 = math.MaxInt32

// span is n bytes from off.
type span struct{ off, n int64 }

var errUnsatisfiable = errors.New("no byte of the range is in the content")

// maxRanges is how many ranges of one request are answered apart. Lazy pullers
// ask for a few dozen; more is answered with the whole.
const maxRanges = 128

// parseRange reads a Range header for content of size bytes. No spans and no
// error mean: send it all. That is the answer to a header that can't be read
// and to a unit that is not known (RFC 9110, section 14.2, which
// distribution-spec, "Pulling blobs", refers to), to ranges that are more than
// the whole (section 14.2 allows it), and to any range of nothing. A header
// that can be read, of which no byte is in the content, is errUnsatisfiable.
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
		return nil, nil // they overlap: the whole is less
	}
	return spans, nil
}

// parseSpan cuts one range to the content. Of an unsatisfiable one no byte is
// left.
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

// parseOffset reads digits and nothing else. A number that is larger than any
// content is the largest one.
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

// openEnded says whether a Range header asks for all the rest: such a client
// resumes, and waits for a download that is under way.
func openEnded(header string) bool {
	return strings.HasSuffix(header, "-") && !strings.Contains(header, ",")
}
