package proxy

import (
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/entrepot/entrepot/proxy/pull"
)

const octetStream = "application/octet-stream"

// serveBlob serves a blob, or the requested ranges of it (distribution-spec,
// "Pulling blobs"; W4, W20).
func (s *Server) serveBlob(w *response, r *http.Request, q route) error {
	header := w.Header()
	d := q.digest.String()
	etag := `"` + d + `"`
	header["Content-Type"] = []string{octetStream}
	header["Docker-Content-Digest"] = []string{d}
	header["Accept-Ranges"] = []string{"bytes"}
	header["Etag"] = []string{etag}
	if has := matchesETag(r.Header, etag); has || r.Method == http.MethodHead {
		return s.describeBlob(w, r, q, has)
	}
	select {
	case s.blobSlots <- struct{}{}:
		defer func() { <-s.blobSlots }()
	default:
		return errTooManyBlobs // at once, so that a runtime goes on to its next host (W33)
	}
	b, err := s.puller.Blob(r.Context(), q.repo, q.digest)
	if err != nil {
		return err
	}
	defer b.Close()
	defer func() { w.outcome = b.Outcome() }()
	ranges := r.Header.Get("Range")
	spans, err := requestedSpans(r.Header, etag, ranges, b.Size())
	if err != nil {
		header.Set("Content-Range", fmt.Sprintf("bytes */%d", b.Size()))
		return refuse(http.StatusRequestedRangeNotSatisfiable, codeRange, fmt.Sprintf("the blob has %d bytes: %v", b.Size(), err))
	}
	switch len(spans) {
	case 0:
		if b.Size() >= 0 {
			header["Content-Length"] = []string{strconv.FormatInt(b.Size(), 10)}
		}
		return writeSpan(w, r, b, http.StatusOK, span{0, -1}, b.Size())
	case 1:
		at, length := spans[0], spans[0].n
		header["Content-Length"] = []string{strconv.FormatInt(length, 10)}
		header["Content-Range"] = []string{contentRange(at, b.Size())}
		if openEnded(ranges) {
			at.n = -1
		}
		return writeSpan(w, r, b, http.StatusPartialContent, at, length)
	}
	return writeSpans(w, r, b, spans)
}

// describeBlob responds without the content, and without fetching it.
func (s *Server) describeBlob(w *response, r *http.Request, q route, has bool) error {
	desc, outcome, err := s.puller.ResolveBlob(r.Context(), q.repo, q.digest)
	w.outcome = outcome
	if err != nil {
		return err
	}
	if has {
		w.Header().Del("Content-Type")
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	if desc.Size >= 0 {
		w.Header()["Content-Length"] = []string{strconv.FormatInt(desc.Size, 10)}
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// requestedSpans parses the ranges of a GET. They are ignored if the size is
// unknown, or if they are meant for other content (RFC 9110, section 13.1.5).
func requestedSpans(header http.Header, etag, ranges string, size int64) ([]span, error) {
	if ranges == "" || size < 0 {
		return nil, nil
	}
	if condition := header.Get("If-Range"); condition != "" && condition != etag {
		return nil, nil
	}
	return parseRange(ranges, size)
}

func contentRange(at span, size int64) string {
	return fmt.Sprintf("bytes %d-%d/%d", at.off, at.off+at.n-1, size)
}

// writeSpan sends one span of a blob, of length bytes, or -1 if that is
// unknown. The status is sent with the first bytes, so that a failure before
// them still becomes an error response.
func writeSpan(w *response, r *http.Request, b pull.Blob, status int, at span, length int64) error {
	w.pending, w.length, w.flushWrites = status, length, true
	written, err := b.WriteRange(r.Context(), w, at.off, at.n)
	if err == nil && length >= 0 && written != length {
		err = fmt.Errorf("blob %s: %d bytes of %d: %w", b.Digest(), written, length, io.ErrUnexpectedEOF)
	}
	switch {
	case err == nil:
		return w.commit() // an empty blob has not sent the status yet
	case w.status == 0:
		w.pending = 0
		return err
	}
	return abort(err)
}
