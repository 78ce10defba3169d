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

// form is the form of a failed response, which shows who sent it.
type form int

const (
	// formBare has no body, or JSON that is not an error list. Anybody may send
	// it.
	formBare form = iota
	// formText is a line of plain text, such as "404 page not found" or
	// "default backend - 404". Some registries send no more, and neither does
	// an ingress without a backend.
	formText
	// formRegistry is an error list of distribution-spec, "Error Codes".
	formRegistry
	// formPage is for people: from an ingress, a CDN, a firewall, a forward
	// proxy or a web site, but not from a registry (W45).
	formPage
)

// failedResponse is what a response other than success says.
type failedResponse struct {
	status  int
	form    form
	code    string // of the first error
	message string // of the first error, safe for a log
}

func (s failedResponse) String() string {
	text := strconv.Itoa(s.status)
	switch {
	case s.message != "":
		text += ": " + s.message
	case s.code != "":
		text += ": " + s.code
	case s.form == formPage:
		text += " with a web page"
	}
	return text
}

// readFailure reads a failed response and closes it. The form of a response to
// HEAD is derived from its media type.
func readFailure(resp *http.Response) failedResponse {
	defer drain(resp)
	s := failedResponse{status: resp.StatusCode}
	// A page is recognized by its beginning, even if the body is too long or is
	// interrupted.
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if isEncoded(resp) {
		read := func(plain io.Reader, _ int64) ([]byte, func(), error) {
			content, err := io.ReadAll(io.LimitReader(plain, maxErrorBody)) // too little to count
			return content, func() {}, err
		}
		if plain, _, err := decode(resp.Header.Get("Content-Encoding"), body, maxErrorBody, read); err == nil {
			body = plain
		}
	}
	var list struct {
		Errors []struct {
			Code    any // a string, but some send a number
			Message any
		}
	}
	// Many send their error lists as text/plain (F34, F36), so the body
	// decides.
	if json.Unmarshal(body, &list) == nil && len(list.Errors) > 0 {
		s.form = formRegistry
		s.code, s.message = sanitize(list.Errors[0].Code), sanitize(list.Errors[0].Message)
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

const maxErrorBody = 16 << 10

// isPage reports whether a response is made for people and not for programs.
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

// sanitize shortens text from outside and removes control characters.
func sanitize(v any) string {
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

// drain reads a little of a body, so that its connection can be used again.
func drain(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10)
	resp.Body.Close()
}
