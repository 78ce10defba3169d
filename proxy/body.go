package proxy

import (
	"errors"
	"io"
	"net/http"
	"time"
)

// hasBody reports whether a request has a body. A request without a
// Content-Length need not have one: some proxies turn a GET without a body into
// an empty chunked one (W49). hasBody waits up to readBodyTimeout to find out.
func (w *response) hasBody(r *http.Request, began time.Time) bool {
	if r.ContentLength == 0 {
		return false
	}
	_ = w.control.SetReadDeadline(began.Add(readBodyTimeout)) // httptest's recorder has no deadlines
	if r.ContentLength > 0 || r.Method != http.MethodGet && r.Method != http.MethodHead {
		return true
	}
	var first [1]byte
	_, err := io.ReadFull(r.Body, first[:])
	// Anything but EOF is a byte, or chunks that are malformed or do not
	// arrive. At the end of a body the server removes the deadline itself.
	return !errors.Is(err, io.EOF)
}
