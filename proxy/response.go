package proxy

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/entrepot/entrepot/proxy/pull"
)

// idleClient is how long a client may read nothing before it is cut.
const idleClient = time.Minute

// response counts what goes out and keeps the way to sendfile open: every
// wrapper around a ResponseWriter has to pass ReadFrom on.
type response struct {
	http.ResponseWriter
	control *http.ResponseController
	pending int    // a status that goes out with the first byte
	held    []byte // what goes out before the next byte, if there is one
	status  int    // what has gone out
	bytes   int64
	outcome pull.Outcome
}

func newResponse(w http.ResponseWriter) *response {
	return &response{ResponseWriter: w, control: http.NewResponseController(w)}
}

func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *response) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// commit sends the pending status and what is held.
func (w *response) commit() error {
	if w.status == 0 && w.pending != 0 {
		w.WriteHeader(w.pending)
	}
	if len(w.held) == 0 {
		return nil
	}
	held := w.held
	w.held = nil
	_, err := w.Write(held)
	return err
}

// holder keeps what is written to it until the next byte goes out.
type holder struct{ w *response }

func (h holder) Write(b []byte) (int, error) {
	h.w.held = append(h.w.held, b...)
	return len(b), nil
}

// extend gives the client another while to take the next piece.
func (w *response) extend() {
	// Not every ResponseWriter has deadlines; those of net/http's server do.
	_ = w.control.SetWriteDeadline(time.Now().Add(idleClient))
}

func (w *response) Write(b []byte) (int, error) {
	if err := w.commit(); err != nil {
		return 0, err
	}
	w.extend()
	n, err := w.ResponseWriter.Write(b)
	w.sent(int64(n))
	return n, err
}

// sent counts bytes. The first go out at once: they are few while an upstream
// is slow, and a buffer would keep them.
func (w *response) sent(n int64) {
	if w.bytes == 0 && n > 0 {
		_ = w.control.Flush() // a client that is gone shows at the next write
	}
	w.bytes += n
}

func (w *response) ReadFrom(src io.Reader) (int64, error) {
	if err := w.commit(); err != nil {
		return 0, err
	}
	w.extend()
	rf, ok := w.ResponseWriter.(io.ReaderFrom)
	if !ok {
		return io.Copy(struct{ io.Writer }{w}, src)
	}
	n, err := rf.ReadFrom(src)
	w.sent(n)
	return n, err
}

func (w *response) writeJSON(r *http.Request, mediaType string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return errors.Join(errors.New("encode the answer"), err)
	}
	return w.writeBody(r, mediaType, body)
}

func (w *response) writeBody(r *http.Request, mediaType string, body []byte) error {
	w.Header()["Content-Type"] = []string{mediaType}
	w.Header()["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	if _, err := w.Write(body); err != nil {
		return brokenOff(err)
	}
	return nil
}
