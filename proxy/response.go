package proxy

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/entrepot/entrepot/proxy/pull"
)

const (
	// idleClient is how long a client may take for one piece before it is cut.
	idleClient = time.Minute
	// maxPiece is the most that goes out in one piece, in bytes. A client that
	// reads 4 KiB/s lives.
	maxPiece = 256 << 10
	// copyBuffer is for connections that have no sendfile, in bytes.
	copyBuffer = 64 << 10
)

// response counts what goes out, and cuts clients that read nothing. It keeps
// the way to sendfile open: every wrapper around a ResponseWriter has to pass
// ReadFrom on.
type response struct {
	http.ResponseWriter
	control *http.ResponseController
	buffers *sync.Pool // of *[]byte
	unread  bool       // something of the request's body is left
	pending int        // a status that goes out with the first byte
	held    []byte     // what goes out before the next byte, if there is one
	prompt  bool       // more may come late: what is written goes out at once
	length  int64      // of the body; -1 where it is not known
	status  int        // what has gone out
	bytes   int64
	outcome pull.Outcome
}

func newResponse(w http.ResponseWriter, buffers *sync.Pool) *response {
	return &response{ResponseWriter: w, control: http.NewResponseController(w), buffers: buffers}
}

func newBuffers() *sync.Pool {
	return &sync.Pool{New: func() any { b := make([]byte, copyBuffer); return &b }}
}

func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *response) WriteHeader(status int) {
	w.status = status
	w.extend()
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

func (w *response) Write(b []byte) (n int, err error) {
	if err := w.commit(); err != nil {
		return 0, err
	}
	for {
		piece := b[n:min(len(b), n+maxPiece)]
		w.extend()
		wrote, err := w.ResponseWriter.Write(piece)
		n += wrote
		w.bytes += int64(wrote)
		if err != nil {
			return n, err
		}
		if n == len(b) {
			return n, w.send()
		}
	}
}

// ReadFrom sends src as one piece.
func (w *response) ReadFrom(src io.Reader) (n int64, err error) {
	if err := w.commit(); err != nil {
		return 0, err
	}
	rf, ok := w.ResponseWriter.(io.ReaderFrom)
	if !ok { // HTTP/2
		buf := w.buffers.Get().(*[]byte)
		defer w.buffers.Put(buf)
		return io.CopyBuffer(struct{ io.Writer }{w}, src, *buf)
	}
	w.extend()
	n, err = rf.ReadFrom(src)
	w.bytes += n
	if err != nil {
		return n, err
	}
	return n, w.send()
}

// send leaves nothing in a buffer that could wait there for a slow upstream.
func (w *response) send() error {
	if !w.prompt || w.bytes == w.length {
		return nil
	}
	return w.control.Flush()
}

// finish sends the end of the answer while the client still has a deadline,
// and takes it away: the connection may be idle afterwards.
func (w *response) finish(r *http.Request) {
	if r.ProtoMajor != 1 {
		return // a deadline is its stream's own there
	}
	// A client that has left needs neither.
	_ = w.control.Flush()
	_ = w.control.SetWriteDeadline(time.Time{})
}

func (w *response) writeJSON(r *http.Request, mediaType string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	return w.writeBody(r, mediaType, body)
}

// writeBody answers 200 with the whole body, or with its headers on HEAD.
func (w *response) writeBody(r *http.Request, mediaType string, body []byte) error {
	header := w.Header()
	header["Content-Type"] = []string{mediaType}
	header["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	if _, err := w.Write(body); err != nil {
		return brokenOff(err)
	}
	return nil
}
