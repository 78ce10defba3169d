package proxy

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/entrepot/entrepot/proxy/pull"
)

// wishedFreshness is what a request says of the age of its answer (RFC 9111,
// section 5.2.1): no-cache, or max-age in seconds. If it says several things,
// the strictest counts. Pragma counts where there is no Cache-Control (section
// 5.4): clients that send it mean the same. Directives that cannot be read say
// nothing.
func wishedFreshness(header http.Header) pull.Freshness {
	directives := header["Cache-Control"]
	if len(directives) == 0 {
		for _, directive := range header["Pragma"] {
			if listsDirective(directive, "no-cache") {
				return pull.NoOlderThan(0)
			}
		}
		return pull.Freshness{}
	}
	oldest := time.Duration(-1)
	for _, line := range directives {
		for directive := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.Trim(directive, " \t"), "=")
			switch strings.ToLower(name) {
			case "no-cache":
				return pull.NoOlderThan(0)
			case "max-age":
				if age, ok := parseSeconds(value); ok && (oldest < 0 || age < oldest) {
					oldest = age
				}
			}
		}
	}
	if oldest < 0 {
		return pull.Freshness{}
	}
	return pull.NoOlderThan(oldest)
}

// wishesOf is that as a list, which is empty if nothing is wished.
func wishesOf(header http.Header) []pull.Freshness {
	if wished := wishedFreshness(header); wished != (pull.Freshness{}) {
		return []pull.Freshness{wished}
	}
	return nil
}

// setAge says how old an answer is that was not asked for just now (RFC 9111,
// section 5.1), so that a mirror behind this one does not keep it for longer than
// it is fresh. What has begun counts as a second.
func setAge(header http.Header, at time.Time) {
	if age := time.Since(at); !at.IsZero() && age > 0 {
		header["Age"] = []string{strconv.FormatInt(int64((age+time.Second-1)/time.Second), 10)}
	}
}

// listsDirective says whether a list of directives has one of that name.
func listsDirective(line, name string) bool {
	for directive := range strings.SplitSeq(line, ",") {
		if strings.EqualFold(strings.Trim(directive, " \t"), name) {
			return true
		}
	}
	return false
}

// maxSeconds is as many seconds as RFC 9111, section 1.2.2, takes for more.
const maxSeconds = 1 << 31

// parseSeconds parses delta-seconds. Both forms of an argument are accepted
// (section 5.2), and more than can be counted is as many as can be.
func parseSeconds(value string) (time.Duration, bool) {
	if unquoted, ok := strings.CutPrefix(value, `"`); ok {
		value = strings.TrimSuffix(unquoted, `"`)
	}
	if value == "" || strings.Trim(value, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil || n > maxSeconds {
		n = maxSeconds
	}
	return time.Duration(n) * time.Second, true
}
