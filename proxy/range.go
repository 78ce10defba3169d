package proxy

import (
	"errors"
	"strconv"
	"strings"
)

// span is n bytes from off.
type span struct{ off, n int64 }

var errUnsatisfiable = errors.New("no byte of the range is in the content")

// maxRanges is how many ranges of one request are answered apart. Lazy pullers
// ask for a few dozen; more is answered with the whole.
const maxRanges = 128

// parseRange reads a Range header for content of size bytes (RFC 9110, section
// 14.2). No spans and no error mean: send it all. A header that can't be read
// is ignored, as that section wants; one that can, and that lies behind the
// end, is errUnsatisfiable.
func parseRange(header string, size int64) ([]span, error) {
	list, ok := strings.CutPrefix(header, "bytes=")
	if !ok {
		return nil, nil
	}
	var spans []span
	var total int64
	seen := 0
	for text := range strings.SplitSeq(list, ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		if seen++; seen > maxRanges {
			return nil, nil
		}
		s, valid, satisfiable := parseSpan(text, size)
		if !valid {
			return nil, nil
		}
		if satisfiable {
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

func parseSpan(text string, size int64) (s span, valid, satisfiable bool) {
	first, last, ok := strings.Cut(text, "-")
	if !ok {
		return s, false, false
	}
	if first == "" {
		n, ok := parseOffset(last)
		n = min(n, size)
		return span{size - n, n}, ok, n > 0
	}
	from, ok := parseOffset(first)
	if !ok {
		return s, false, false
	}
	to := size - 1
	if last != "" {
		end, ok := parseOffset(last)
		if !ok || end < from {
			return s, false, false
		}
		to = min(to, end)
	}
	return span{from, to - from + 1}, true, from < size
}

func parseOffset(s string) (int64, bool) {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && s != ""
}

// openEnded says whether a Range header asks for all the rest: such a client
// resumes, and waits for a download that is under way.
func openEnded(header string) bool {
	return strings.HasSuffix(header, "-") && !strings.Contains(header, ",")
}
