package proxy

import (
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strconv"

	"github.com/entrepot/entrepot/proxy/pull"
)

// writeSpans sends several spans of a blob as multipart/byteranges (RFC 9110,
// section 14.6; W20). The parts' headers are generated twice, first to compute
// the length.
func writeSpans(w *response, r *http.Request, b pull.Blob, spans []span) error {
	var length counter
	counted := multipart.NewWriter(&length)
	for _, at := range spans {
		if _, err := counted.CreatePart(partHeader(at, b.Size())); err != nil {
			return err
		}
		length += counter(at.n)
	}
	if err := counted.Close(); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "multipart/byteranges; boundary="+counted.Boundary())
	w.Header().Set("Content-Length", strconv.FormatInt(int64(length), 10))
	w.pending = http.StatusPartialContent
	if err := writeParts(w, r, b, spans, counted.Boundary()); err != nil {
		if w.status == 0 {
			w.pending, w.buffered = 0, nil
			return err
		}
		return abort(err)
	}
	return nil
}

func writeParts(w *response, r *http.Request, b pull.Blob, spans []span, boundary string) error {
	parts := multipart.NewWriter(bufferWriter{w})
	if err := parts.SetBoundary(boundary); err != nil {
		return err
	}
	for _, at := range spans {
		if _, err := parts.CreatePart(partHeader(at, b.Size())); err != nil {
			return err
		}
		written, err := b.WriteRange(r.Context(), w, at.off, at.n)
		if err == nil && written != at.n {
			err = fmt.Errorf("blob %s: %d bytes of %d: %w", b.Digest(), written, at.n, io.ErrUnexpectedEOF)
		}
		if err != nil {
			return err
		}
	}
	return errors.Join(parts.Close(), w.commit())
}

func partHeader(at span, size int64) textproto.MIMEHeader {
	return textproto.MIMEHeader{"Content-Type": {octetStream}, "Content-Range": {contentRange(at, size)}}
}

// counter is a writer that counts bytes.
type counter int64

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}
