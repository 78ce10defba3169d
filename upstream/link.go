package upstream

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// nextPage returns the URL of a list's next page, or nil at its end. A page on
// another host is an error.
func nextPage(resp *http.Response) (*url.URL, error) {
	for _, header := range resp.Header.Values("Link") {
		target, ok := nextLink(header)
		if !ok {
			continue
		}
		u, err := url.Parse(target)
		if err != nil || u.Host != "" && u.Host != resp.Request.URL.Host {
			return nil, fmt.Errorf("%w: the next page is on another host", ErrInvalidResponse)
		}
		u = resp.Request.URL.ResolveReference(u)
		u.Scheme, u.Host = resp.Request.URL.Scheme, resp.Request.URL.Host
		return u, nil
	}
	return nil, nil //nolint:nilnil // the end of a list is not an error
}

// nextLink finds the target of rel="next" in a Link header (RFC 8288).
func nextLink(header string) (string, bool) {
	for rest := header; ; {
		_, after, ok := strings.Cut(rest, "<")
		if !ok {
			return "", false
		}
		target, tail, ok := strings.Cut(after, ">")
		if !ok {
			return "", false
		}
		params, next, _ := strings.Cut(tail, "<")
		for param := range strings.SplitSeq(params, ";") {
			name, value, _ := strings.Cut(strings.Trim(param, " \t,"), "=")
			if strings.EqualFold(strings.TrimSpace(name), "rel") && strings.EqualFold(strings.Trim(strings.TrimSpace(value), `"`), "next") {
				return target, true
			}
		}
		if next == "" {
			return "", false
		}
		rest = "<" + next
	}
}
