package proxy

import (
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"strconv"

	"github.com/entrepot/entrepot/proxy/pull"
)

// parts are spans of content of size bytes as multipart/byteranges (RFC 9110,
// section 14.6; W20). There may be a thousand of them, so their headers are
// written without package multipart, which makes a map for each.
type parts struct {
	spans    []span
	size     int64
	boundary string
}

func newParts(spans []span, size int64) parts {
	return parts{spans, size, multipart.NewWriter(nil).Boundary()}
}

// appendHeader appends what stands before the part with that number, or behind
// the last one.
func (p parts) appendHeader(b []byte, i int) []byte {
	if i > 0 {
		b = append(b, "\r\n"...)
	}
	b = append(append(b, "--"...), p.boundary...)
	if i == len(p.spans) {
		return append(b, "--\r\n"...)
	}
	b = append(b, "\r\nContent-Range: "...)
	b = appendContentRange(b, p.spans[i], p.size)
	return append(b, "\r\nContent-Type: "+octetStream+"\r\n\r\n"...)
}

// length is that of all parts with their headers, in bytes.
func (p parts) length() (n int64) {
	var header [256]byte
	for i, at := range p.spans {
		n += int64(len(p.appendHeader(header[:0], i))) + at.n
	}
	return n + int64(len(p.appendHeader(header[:0], len(p.spans))))
}

// writeSpans sends several spans of a blob.
func writeSpans(w *response, r *http.Request, b pull.Blob, spans []span, size int64) error {
	p := newParts(spans, size)
	w.Header()["Content-Type"] = []string{"multipart/byteranges; boundary=" + p.boundary}
	w.Header()["Content-Length"] = []string{strconv.FormatInt(p.length(), 10)}
	w.pending = http.StatusPartialContent
	if err := p.write(w, r, b); err != nil {
		if w.status == 0 {
			w.pending, w.buffered = 0, nil
			return err
		}
		return abort(err)
	}
	return nil
}

func (p parts) write(w *response, r *http.Request, b pull.Blob) error {
	for i, at := range p.spans {
		w.buffered = p.appendHeader(w.buffered, i)
		written, err := b.WriteRange(r.Context(), w, at.off, at.n)
		if err == nil && written != at.n {
			err = fmt.Errorf("blob %s: %d bytes of %d: %w", b.Digest(), written, at.n, io.ErrUnexpectedEOF)
		}
		if err != nil {
			return err
		}
	}
	w.buffered = p.appendHeader(w.buffered, len(p.spans))
	return w.commit()
}
