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
	// defaultClientIdle is how long a client may take to receive one chunk
	// before it is disconnected. Runtimes pause behind a slow unpack, and proxies
	// while their buffers are full.
	defaultClientIdle = 15 * time.Minute
	// maxChunk is the most that is written at once, in bytes. A client that
	// reads 300 bytes a second is not disconnected.
	maxChunk = 256 << 10
	// copyBuffer is the size of buffers for connections without sendfile, in
	// bytes.
	copyBuffer = 64 << 10
)

// response counts what is sent and disconnects clients that do not read. It
// implements ReadFrom so that sendfile can be used: every wrapper of a
// ResponseWriter has to pass that method on.
type response struct {
	http.ResponseWriter
	control     *http.ResponseController
	buffers     *sync.Pool // of *[]byte
	pending     int        // a status to send with the first byte
	buffered    []byte     // to be sent before the next byte, if there is one
	flushWrites bool       // the rest may come late, so what is written is flushed at once
	length      int64      // of the body; -1 if unknown
	status      int        // the status sent
	bytes       int64
	outcome     pull.Outcome
	client      clientDeadline
	headerFields
}

// headerFields are about the request, and the answer's header.
type headerFields struct {
	unreadBody bool      // the request's body has not been read to its end
	headerSize int       // of the request, in bytes
	values     [8]string // of the answer's fields, so that they need no memory of their own
	fields     int       // how many of them are in use
}

// clientDeadline is until when a client has to have received a chunk.
type clientDeadline struct {
	idle time.Duration
	at   time.Time // zero before the first chunk
}

func newResponse(w http.ResponseWriter, buffers *sync.Pool, clientIdle time.Duration) *response {
	return &response{ResponseWriter: w, control: http.NewResponseController(w), buffers: buffers, client: clientDeadline{idle: clientIdle}}
}

func newBuffers() *sync.Pool {
	return &sync.Pool{New: func() any { b := make([]byte, copyBuffer); return &b }}
}

// set sets a field of the header, whose name is canonical, to one value.
func (w *response) set(name, value string) {
	if w.fields == len(w.values) {
		w.Header()[name] = []string{value}
		return
	}
	w.values[w.fields] = value
	w.Header()[name] = w.values[w.fields : w.fields+1 : w.fields+1]
	w.fields++
}

func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader sends nothing yet: net/http keeps the header for what follows.
func (w *response) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// commit sends the pending status and what is buffered.
func (w *response) commit() error {
	if w.status == 0 && w.pending != 0 {
		w.WriteHeader(w.pending)
	}
	if len(w.buffered) == 0 {
		return nil
	}
	held := w.buffered
	w.buffered = held[:0] // a thousand parts share it
	_, err := w.Write(held)
	return err
}

// extendDeadline gives the client time to receive the next chunk.
func (w *response) extendDeadline() {
	// Not every ResponseWriter has deadlines; those of net/http's server do.
	w.client.at = time.Now().Add(w.client.idle)
	_ = w.control.SetWriteDeadline(w.client.at)
}

func (w *response) Write(b []byte) (n int, err error) {
	if err := w.commit(); err != nil {
		return 0, err
	}
	for {
		piece := b[n:min(len(b), n+maxChunk)]
		w.extendDeadline()
		wrote, err := w.ResponseWriter.Write(piece)
		n += wrote
		w.bytes += int64(wrote)
		if err != nil {
			return n, err
		}
		if n == len(b) {
			return n, w.flush()
		}
	}
}

// ReadFrom sends src as one chunk.
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
	w.extendDeadline()
	n, err = rf.ReadFrom(src)
	w.bytes += n
	if err != nil {
		return n, err
	}
	return n, w.flush()
}

// flush sends what is buffered, if a slow upstream could keep it waiting.
func (w *response) flush() error {
	if !w.flushWrites || w.bytes == w.length {
		return nil
	}
	return w.control.Flush()
}

// finish sends the end of the response while the client still has a deadline,
// and then removes the deadline: the connection may be idle afterwards.
func (w *response) finish(r *http.Request) {
	if w.client.at.IsZero() { // there is only a header
		w.extendDeadline()
	}
	if r.ProtoMajor != 1 {
		return // each stream has its own deadline
	}
	// The errors do not matter: they mean that the client has disconnected.
	_ = w.control.Flush()
	_ = w.control.SetWriteDeadline(time.Time{})
}

func (w *response) writeJSON(r *http.Request, mediaType string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode the response: %w", err)
	}
	return w.writeBody(r, mediaType, body)
}

// writeBody responds 200 with the whole body, or with only its headers on HEAD.
func (w *response) writeBody(r *http.Request, mediaType string, body []byte) error {
	w.set("Content-Type", mediaType)
	w.set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	if _, err := w.Write(body); err != nil {
		return abort(err)
	}
	return nil
}
