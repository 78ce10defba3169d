package upstream

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// maxPageQuery limits the query that a Link names, in bytes.
const maxPageQuery = 4 << 10

// listError is the ErrInvalidResponse of pages that do not make up a list. It
// says nothing about the API: each of them was a page.
type listError struct{ text string }

func (e *listError) Error() string { return ErrInvalidResponse.Error() + ": " + e.text }
func (e *listError) Unwrap() error { return ErrInvalidResponse }

var errUnreadableLink = &listError{"the Link to a next page can't be read"}

// nextPage returns the URL of a list's next page, or nil at its end. A Link
// that can't be read is an error: it may be the one to the next page.
//
// Behind a proxy that ends TLS, or has another path, a registry names itself
// otherwise than it is reached. So a next page is asked for where this one is
// from, with the Link's path and query, whatever host the Link names.
func nextPage(resp *http.Response) (*url.URL, error) {
	target, err := nextLink(resp.Header.Values("Link"))
	if err != nil || target == "" {
		return nil, err
	}
	at := resp.Request.URL
	to, err := at.Parse(target)
	if err != nil || to.Opaque != "" || len(to.RawQuery) > maxPageQuery {
		return nil, errUnreadableLink
	}
	u := url.URL{Scheme: at.Scheme, Host: at.Host, Path: to.Path, RawPath: to.RawPath, RawQuery: to.RawQuery}
	if before, _, ok := strings.Cut(at.Path, "/v2/"); ok && strings.HasPrefix(to.Path, "/v2/") {
		u.Path = before + to.Path
		if to.RawPath != "" {
			u.RawPath = before + to.RawPath
		}
	}
	return &u, nil
}

// nextLink returns the target of the first link with the relation "next" (RFC
// 8288), or nothing if all links have other ones.
func nextLink(headers []string) (string, error) {
	unreadable := false
	for _, header := range headers {
		links, err := parseLinks(header)
		for _, l := range links {
			if slices.Contains(l.relations, "next") {
				return l.target, nil
			}
		}
		unreadable = unreadable || err != nil
	}
	if unreadable {
		return "", errUnreadableLink
	}
	return "", nil
}

// link is one link of a Link header.
type link struct {
	target    string
	relations []string // in lower case
}

var errLinkSyntax = errors.New("not a Link")

// parseLinks parses a Link header (RFC 8288, section 3). With an error it
// returns the links before it.
func parseLinks(header string) (all []link, err error) {
	for rest := header; ; {
		rest = strings.TrimLeft(rest, " \t,")
		if rest == "" {
			return all, nil
		}
		l, after, ok := parseLink(rest)
		if !ok {
			return all, errLinkSyntax
		}
		all, rest = append(all, l), after
	}
}

// parseLink parses the link at the beginning of s: <target>; name=value; ….
func parseLink(s string) (l link, rest string, ok bool) {
	if s[0] != '<' {
		return link{}, "", false
	}
	if l.target, rest, ok = strings.Cut(s[1:], ">"); !ok {
		return link{}, "", false
	}
	if l.target = strings.TrimSpace(l.target); l.target == "" {
		return link{}, "", false
	}
	for {
		rest = strings.TrimLeft(rest, " \t")
		if rest == "" || rest[0] == ',' {
			return l, rest, l.relations != nil // a link says what it is to (section 3.3)
		}
		if rest[0] != ';' {
			return link{}, "", false
		}
		var name, value string
		if name, value, rest, ok = parseLinkParameter(rest[1:]); !ok {
			return link{}, "", false
		}
		if strings.EqualFold(name, "rel") && l.relations == nil {
			l.relations = strings.Fields(strings.ToLower(value))
		}
	}
}

// parseLinkParameter parses name, name=value or name="value".
func parseLinkParameter(s string) (name, value, rest string, ok bool) {
	end := strings.IndexAny(s, "=;,")
	if end < 0 {
		end = len(s)
	}
	name, rest = strings.TrimSpace(s[:end]), s[end:]
	if rest == "" || rest[0] != '=' {
		return name, "", rest, true
	}
	rest = strings.TrimLeft(rest[1:], " \t")
	if !strings.HasPrefix(rest, `"`) {
		if end = strings.IndexAny(rest, ";,"); end < 0 {
			end = len(rest)
		}
		return name, strings.TrimSpace(rest[:end]), rest[end:], true
	}
	var text strings.Builder
	for i := 1; i < len(rest); i++ {
		switch rest[i] {
		case '"':
			return name, text.String(), rest[i+1:], true
		case '\\':
			if i++; i == len(rest) {
				return "", "", "", false
			}
		}
		text.WriteByte(rest[i])
	}
	return "", "", "", false // the quote is open
}
