package proxy

import (
	"errors"
	"io"
	"net/http"
	"time"
)

// hasBody says whether something of a request's body is left to be read, which
// nobody wants. A length that is not told is no body yet: proxies turn a GET
// without one into chunks of which there are none (W49). Whether there are any
// shows within readBody.
func (w *response) hasBody(r *http.Request, began time.Time) bool {
	if r.ContentLength == 0 {
		return false
	}
	_ = w.control.SetReadDeadline(began.Add(readBody)) // httptest's recorder has none
	if r.ContentLength > 0 || r.Method != http.MethodGet && r.Method != http.MethodHead {
		return true
	}
	var first [1]byte
	_, err := io.ReadFull(r.Body, first[:])
	// Else it is a byte, or chunks that can't be read or don't come. At the end
	// of a body the server takes the deadline away by itself, for the time that
	// the answer takes.
	return !errors.Is(err, io.EOF)
}
