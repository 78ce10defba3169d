package upstream

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"unicode"
)

// form is in whose words an answer that is no success comes.
type form int

const (
	// formBare is nobody's in particular: no body, or JSON that is no error list.
	formBare form = iota
	// formText is a line of plain words, such as "404 page not found" or
	// "default backend - 404": some registries say no more, and neither does
	// an ingress with nothing behind it.
	formText
	// formRegistry is an error list of distribution-spec, "Error Codes".
	formRegistry
	// formPage is for people: an ingress, a CDN, a firewall, a forward proxy
	// or a web site, but no registry (W45).
	formPage
)

// said is what a failing answer says.
type said struct {
	status  int
	form    form
	code    string // of the first error
	message string // of the first error, fit for a log
}

func (s said) String() string {
	text := strconv.Itoa(s.status)
	switch {
	case s.message != "":
		text += ": " + s.message
	case s.code != "":
		text += ": " + s.code
	case s.form == formPage:
		text += " with a page that is no registry's"
	}
	return text
}

// listen reads what a failing answer says, and closes it. The body of an
// answer to HEAD is judged by the type that it would have had.
func listen(resp *http.Response) said {
	defer drop(resp)
	s := said{status: resp.StatusCode}
	// Of a longer one, or one that breaks off, the beginning still tells a page.
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxComplaint))
	if isEncoded(resp) {
		if plain, err := decode(resp.Header.Get("Content-Encoding"), body, maxComplaint); err == nil {
			body = plain
		}
	}
	var list struct {
		Errors []struct {
			Code    any // a string; a number at some
			Message any
		}
	}
	// Many send their error lists as text/plain (F34, F36): the body tells.
	if json.Unmarshal(body, &list) == nil && len(list.Errors) > 0 {
		s.form = formRegistry
		s.code, s.message = word(list.Errors[0].Code), word(list.Errors[0].Message)
		return s
	}
	switch {
	case isPage(resp, body):
		s.form = formPage
	case isText(resp, body):
		s.form = formText
	}
	return s
}

const maxComplaint = 16 << 10

// isPage tells what is made for people from what is made for programs.
func isPage(resp *http.Response, body []byte) bool {
	switch mediaTypeOf(resp) {
	case "text/html", "application/xhtml+xml", "text/xml", "application/xml":
		return true
	}
	return bytes.HasPrefix(bytes.TrimSpace(body), []byte("<"))
}

func isText(resp *http.Response, body []byte) bool {
	if body = bytes.TrimSpace(body); len(body) > 0 {
		return !json.Valid(body)
	}
	return mediaTypeOf(resp) == "text/plain"
}

// word is a short text of somebody else's, without what would break a line.
func word(v any) string {
	text, ok := v.(string)
	if !ok && v != nil {
		text = fmt.Sprint(v)
	}
	text = strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return ' '
		}
		return c
	}, text)
	if runes := []rune(text); len(runes) > 200 {
		text = string(runes[:200]) + "…"
	}
	return text
}

// drop empties a little of a body, so that its connection can be used again.
func drop(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10)
	resp.Body.Close()
}
